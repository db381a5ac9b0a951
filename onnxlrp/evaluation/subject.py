"""The model under explanation, on onnxruntime: its logits, its gradients, its relevance maps, its randomised copies."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxlrp.api import ModelLike, Rules, plan
from onnxlrp.check import metadata
from onnxlrp.errors import UsageError
from onnxlrp.evaluation.case import Array
from onnxlrp.evaluation.sample import Layout
from onnxlrp.explain.layout import Dimension
from onnxlrp.graph.view import Graph
from onnxlrp.planning.model import PlanStep
from onnxlrp.planning.target import Explained, resolve_outputs
from onnxlrp.read import external
from onnxlrp.read.load import Source, load
from onnxlrp.read.prepare import prepare
from onnxlrp.run.explainer import Explainer
from onnxlrp.run.session import open_beside
from onnxlrp.tables import RuleTable, load_table

#: Elements of the explained input that go through the model in one run, which bounds the memory of its activations.
_AT_ONCE = 1 << 21
#: Bytes of randomised copies that are kept open, and for how many rule tables each of them is.
_KEPT, _TABLES = 1 << 29, 2
#: Copies that are kept open however large they are: as many as one metric goes through for each sample.
_COPIES = 4


class Engine:
    """A model with one explained input and one explained output, and the sessions opened for it so far.

    Args:
        model: an original model (a converted one has its rules inside).
        input_name: the explained input, None where the model has one float or token input.
        output: the explained output, the first float output when None. A final Softmax and the like is stepped over.
        providers: onnxruntime execution providers; the CPU when None.
        tables: for how many rule tables it is kept open at once; None for all.

    Raises:
        UsageError: the model is a converted one, or has no such input or output.
        ModelReadError, ConversionError: as `onnxlrp.convert`.
    """

    def __init__(
        self,
        model: ModelLike,
        *,
        input_name: str | None = None,
        output: str | None = None,
        base_dir: str | os.PathLike[str] | None = None,
        providers: Sequence[str] | None = None,
        tables: int | None = None,
    ) -> None:
        source = load(model, base_dir)
        if metadata.converted_by(source.model) is not None:
            raise UsageError("the model is a converted one; evaluation compares rule tables: give the original model")
        prepared = prepare(source)
        graph = Graph(prepared.model, prepared.inferred)
        self._source = Source(prepared.model, source.path, source.base_dir)
        self._output = output
        self._providers = providers
        self._input = input_name
        self._explained: Explained = resolve_outputs(graph, [output] if output else [])[0]
        shape = graph.shape(self._explained.tensor)
        self._axes = None if shape is None else shape[1:]
        infos = {name: graph.info(name) for name in graph.inputs}
        self.input_names: tuple[str, ...] = tuple(infos)
        self.input_shapes: dict[str, Sequence[Dimension] | None] = {n: i.shape for n, i in infos.items()}
        self.input_types: dict[str, np.dtype[Any]] = {
            n: np.dtype(onnx.helper.tensor_dtype_to_np_dtype(i.dtype)) for n, i in infos.items() if i.dtype
        }
        self._forward: Any = None
        self._tables = tables
        self._explainers: OrderedDict[Hashable, Explainer] = OrderedDict()
        self._randomised: OrderedDict[tuple[int, int], Engine] = OrderedDict()
        self._weighted: int | None = None

    @property
    def input_name(self) -> str:
        """The explained input.

        Raises:
            UsageError: none was named and the model has several.
        """
        if self._input is None:
            if len(self.input_names) != 1:
                raise UsageError(f"the model has several inputs: {', '.join(self.input_names)}; name one with --input")
            self._input = self.input_names[0]
        return self._input

    @property
    def explained_output(self) -> str:
        """The tensor that scores are read from."""
        return self._explained.tensor

    @property
    def is_token(self) -> bool:
        """Whether the explained input is made of token ids."""
        return self.input_types[self.input_name].kind in "iu"

    def explain_input(self, name: str) -> None:
        """Settles the explained input.

        Raises:
            UsageError: another one was named.
        """
        if self._input not in (None, name):
            raise UsageError(f"the data goes into input {name!r}, so that {self._input!r} cannot be explained with it")
        self._input = name

    @property
    def fixed_batch(self) -> int | None:
        """How many samples the model takes at once; None where that is open."""
        shape = self.input_shapes[self.input_name]
        return shape[0] if shape and isinstance(shape[0], int) else None

    @property
    def digest(self) -> str:
        """Changes with the model, its weights included, and with what is explained of it."""
        if not hasattr(self, "_digest"):
            found = hashlib.sha256(self._source.model.SerializeToString(deterministic=True))
            for path in _external_files(self._source):
                with path.open("rb") as file:
                    found.update(hashlib.file_digest(file, "sha256").digest())
            found.update(f"{self._explained.tensor} {self.input_name}".encode())
            self._digest = found.hexdigest()
        return self._digest

    def logits(self, feeds: Mapping[str, Array]) -> Array:
        """The explained output [n, classes] of one run, float64; further axes are laid out flat."""
        if self._forward is None:
            self._forward = self._open_forward()
        try:
            (found,) = self._forward.run([self._explained.tensor], dict(feeds))
        except Exception as error:  # onnxruntime raises its own unrelated classes
            lines = str(error).strip().splitlines()
            raise UsageError(
                f"onnxruntime cannot run the model on this data: {lines[0] if lines else error!r}"
            ) from error
        exact: Array = np.asarray(found, np.float64)
        return exact.reshape(exact.shape[0] if exact.ndim else 1, -1)

    def explainer(self, rules: Rules) -> Explainer:
        """The model converted by a rule table, with the class given with each run."""
        table = load_table(rules)
        key = _key(table)
        if key not in self._explainers:
            while self._tables is not None and len(self._explainers) >= self._tables:
                self._explainers.popitem(last=False)
            self._explainers[key] = Explainer(
                self._source.model,
                rules=table,
                target="input",
                inputs=[self.input_name],
                outputs=[self._output] if self._output else [],
                base_dir=self._source.base_dir,
                providers=self._providers,
            )
        self._explainers.move_to_end(key)
        return self._explainers[key]

    def forget(self, rules: Rules) -> None:
        """Closes what was opened for a rule table."""
        self._explainers.pop(_key(load_table(rules)), None)

    def steps(self, rules: Rules = "gradient-x-input") -> tuple[PlanStep, ...]:
        """The steps from the explained output back to the explained input, as a rule table treats them."""
        outputs = [self._output] if self._output else []
        base_dir = self._source.base_dir
        return plan(self._source.model, rules=rules, inputs=[self.input_name], outputs=outputs, base_dir=base_dir).steps

    def index_of(self, targets: Array) -> Array:
        """Flat classes as `lrp_target` takes them: int64 [n, axes]."""
        axes = self._axes
        if axes is None or len(axes) < 2:
            return targets.astype(np.int64)[:, None]
        sizes = tuple(size if isinstance(size, int) else 0 for size in axes)
        if 0 in sizes[1:]:
            raise UsageError(
                f"output {self._explained.name!r} has {len(axes)} axes of open size; evaluation needs classes: name an "
                "output [batch, classes] with --output"
            )
        return np.stack(
            np.unravel_index(targets.astype(np.int64), (max(sizes[0], int(targets.max()) + 1), *sizes[1:])), 1
        )

    @property
    def layers(self) -> int:
        """How many weighted layers there are."""
        if self._weighted is None:
            from onnxlrp.evaluation.randomise import weighted_layers

            self._weighted = weighted_layers(self._source.model, self._source.data_folders, [self.explained_output])
        return self._weighted

    def randomised(self, layers: int, seed: int) -> Engine:
        """The model with the parameters of its last `layers` weighted layers permuted."""
        key = (layers, seed)
        if key not in self._randomised:
            from onnxlrp.evaluation.randomise import randomise

            size = (1 + _TABLES) * max(1, self._source.model.ByteSize())
            while len(self._randomised) >= _COPIES and (len(self._randomised) + 1) * size > _KEPT:
                self._randomised.popitem(last=False)
            self._randomised[key] = Engine(
                randomise(self._source.model, layers, seed, self._source.data_folders, [self.explained_output]),
                input_name=self.input_name,
                output=self._output,
                base_dir=self._source.base_dir,
                providers=self._providers,
                tables=_TABLES,
            )
        self._randomised.move_to_end(key)
        return self._randomised[key]

    def _open_forward(self) -> Any:
        """A session that returns the logits alone."""
        model = onnx.ModelProto()
        model.CopyFrom(self._source.model)
        del model.graph.output[:]
        model.graph.output.append(onnx.ValueInfoProto(name=self._explained.tensor))
        return open_beside(self._source, model, self._providers)


@dataclass(frozen=True)
class OnnxSubject:
    """A batch of samples in front of a model; see `Subject`.

    Attributes:
        others: the model's other inputs, [n, ...] by name: row i belongs to sample i.
        shared: inputs without a batch axis.
        layout: of the model's own input; the values have the channels of a picture first.
    """

    engine: Engine
    others: Mapping[str, Array]
    shared: Mapping[str, Array]
    layout: Layout

    def scores(self, values: Array, rows: Array) -> Array:
        """See `Subject.scores`."""
        name = self.engine.input_name
        kept = [self.engine.logits({name: v, **o})[:count] for v, o, count, _ in self._runs(values, rows)]
        return np.concatenate(kept)

    def relevance(self, rules: Rules, values: Array, targets: Array, rows: Array) -> Array:
        """The map of each value by a rule table, in the values' shape, float64."""
        explainer, name = self.engine.explainer(rules), self.engine.input_name
        index = self.engine.index_of(targets)
        found = []
        for v, o, count, places in self._runs(values, rows):
            explained = explainer.explain({name: v, **o}, target=index[places])
            found.append(np.asarray(explained.relevance[name][:count], np.float64))
        return self.layout.to_channels_first(np.concatenate(found))

    def gradients(self, values: Array, targets: Array, rows: Array) -> Array:
        """See `Subject.gradients`."""
        if self.engine.is_token:
            raise UsageError("token ids have no gradient; for tokens there are gradient-x-input and occlusion")
        return self.relevance("gradient", values, targets, rows)

    def randomised(self, layers: int, seed: int) -> OnnxSubject:
        """See `Subject.randomised`."""
        return replace(self, engine=self.engine.randomised(layers, seed))

    @property
    def layers(self) -> int:
        """See `Subject.layers`."""
        return self.engine.layers

    def _runs(self, values: Array, rows: Array) -> Iterator[tuple[Array, dict[str, Array], int, Array]]:
        """Values, other inputs, how many of them count, and their places, for each run of the model."""
        fixed = self.engine.fixed_batch
        size = fixed or max(1, min(256, _AT_ONCE // max(1, values[0].size)))
        own = self.layout.from_channels_first(values)
        typed = own.astype(self.engine.input_types[self.engine.input_name], copy=False)
        for start in range(0, len(values), size):
            count = min(size, len(values) - start)
            places = np.arange(start, start + count)
            if fixed:  # the last run is filled up with its last value
                places = np.append(places, np.full(fixed - count, places[-1]))
            others = {name: array[rows[places]] for name, array in self.others.items()}
            yield np.ascontiguousarray(typed[places]), {**others, **self.shared}, count, places


def _key(table: RuleTable) -> Hashable:
    return (table.text, *sorted(table.files.items()))


def _external_files(source: Source) -> list[Path]:
    named = external.locations(source.model)
    return [external.locate(location, tensor, source.data_folders) for location, tensor in sorted(named.items())]
