"""One file per family of metrics; importing this package fills the registry."""
