"""One file per family of metrics; importing this package fills the registry."""

from onnxlrp.evaluation.metrics import completeness as completeness
from onnxlrp.evaluation.metrics import complexity as complexity
from onnxlrp.evaluation.metrics import gae as gae
from onnxlrp.evaluation.metrics import localisation as localisation
from onnxlrp.evaluation.metrics import neighbours as neighbours
from onnxlrp.evaluation.metrics import randomisation as randomisation
from onnxlrp.evaluation.metrics import regions as regions
from onnxlrp.evaluation.metrics import removal as removal
from onnxlrp.evaluation.metrics import stability as stability
from onnxlrp.evaluation.metrics import subsets as subsets
