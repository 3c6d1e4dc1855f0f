"""Rules of support: does this engine take such a model, on such chips, in such a form?"""

from __future__ import annotations

from trainyard.neuron import quantization
from trainyard.neuron.instances import NODEPOOLS
from trainyard.neuron.rule import Question, Rule, failed, passed


def family(question: Question) -> Rule:
    engine, kind = question.engine, question.kind
    if kind.family in engine.families:
        return passed("family", f"{engine.name} runs on {kind.family}")
    return failed(
        "family",
        "hardware.instance_type",
        kind.name,
        f"engine {engine.name} does not run on {kind.family}",
        f"Use an instance of {', '.join(sorted(engine.families))}, or another engine.",
    )


def nodepool(question: Question) -> Rule | None:
    """A pod that names the pool of other chips stays pending until it is given up."""
    kind, asked = question.kind, question.ask.nodepool
    if not asked:
        return None
    if asked not in NODEPOOLS:
        return passed("nodepool", f"{asked} is a NodePool of your own: it must have {kind.name}")
    if asked == kind.nodepool:
        return passed("nodepool", f"{asked} brings {kind.family}")
    return failed(
        "nodepool",
        "hardware.nodepool",
        asked,
        f"the NodePool {asked} has no {kind.name}: its pods would wait for ever",
        f"Use {kind.nodepool}, or a NodePool of your own that has it.",
    )


def architecture(question: Question) -> Rule:
    """Novel architectures are refused too: what the engine does not list, it cannot compile."""
    engine, facts = question.engine, question.facts
    if facts.model_type in engine.model_types:
        return passed("architecture", f"{engine.name} {engine.versions.engine} compiles {facts.model_type}")
    return failed(
        "architecture",
        "model.config.model_type",
        facts.model_type,
        f"engine {engine.name} {engine.versions.engine} has no such architecture ({facts.model_type})",
        f"It takes {', '.join(sorted(engine.model_types))}.",
    )


def dtype(question: Question) -> Rule:
    engine, facts = question.engine, question.facts
    if facts.dtype in engine.dtypes:
        return passed("dtype", f"{engine.name} takes {facts.dtype}")
    return failed(
        "dtype",
        "model.config.torch_dtype",
        facts.dtype,
        f"engine {engine.name} does not take this dtype",
        f"Publish the weights as one of {', '.join(sorted(engine.dtypes))}.",
    )


def quantized(question: Question) -> Rule:
    return quantization.rule(question.facts, question.engine, question.kind, question.ask.quantization)


def images(question: Question) -> Rule:
    """The text part of a multimodal model is a model: what is refused is to show it pictures."""
    engine, facts = question.engine, question.facts
    if question.ask.shows_images and not (facts.multimodal and facts.model_type in engine.images_too):
        taken = ", ".join(sorted(engine.images_too)) or "none"
        return failed(
            "images",
            "rollout.load.images",
            facts.model_type,
            f"the load test shows pictures, and engine {engine.name} serves "
            + (f"{facts.model_type} without them" if facts.multimodal else "a model that takes text only"),
            f"Leave rollout.load.images out (models that {engine.name} shows pictures to: {taken}).",
        )
    if not facts.multimodal:
        return passed("images", "a text model")
    if facts.model_type in engine.images_too:
        return passed("images", f"{engine.name} serves {facts.model_type} with images")
    return passed(
        "images",
        f"a multimodal model, and {engine.name} serves its text part only: requests with images are refused",
    )


def licence(question: Question) -> Rule:
    if not question.facts.gated:
        return passed("licence", "not gated")
    if question.ask.has_token:
        return passed("licence", "gated, and there is a token; its account must have accepted the licence")
    return failed(
        "licence",
        "model.token_secret",
        None,
        "the model is gated by a licence, and there is no Hub token",
        "Accept the licence on the Hub with an account, and name a Secret with its token (plan itself takes "
        "the connection huggingface_default or HF_TOKEN).",
    )


def lnc(question: Question) -> Rule:
    engine, kind, asked = question.engine, question.kind, question.ask.lnc
    if asked is not None and asked not in kind.lncs:
        return failed(
            "lnc",
            "hardware.lnc",
            asked,
            f"a logical core of {kind.chip} can have {_words(kind.lncs)} physical core(s)",
            f"Use {_words(kind.lncs)}, or leave it out.",
        )
    able = tuple(value for value in engine.lncs(kind.target) if value in kind.lncs)
    if kind.family in engine.families and question.lnc not in able:
        return failed(
            "lnc",
            "hardware.lnc",
            asked,
            f"engine {engine.name} does not support LNC={question.lnc} on {kind.target}",
            f"Use {_words(able) or 'another engine'}, or leave it out.",
        )
    return passed(
        "lnc",
        f"LNC={question.lnc}: {kind.physical_cores} physical cores are {kind.cores(question.lnc)} logical",
    )


def bundle(question: Question) -> Rule:
    engine, asked = question.engine, question.ask.holds
    if question.ask.quantization and question.holds == "graph" and "weights" in engine.holds:
        return failed(
            "bundle",
            "compile.bundle.holds",
            "graph",
            f"weights are quantized to {question.ask.quantization} while compiling; no server does it again",
            "Use weights, or leave compile.quantization out.",
        )
    if asked is None or asked in engine.holds:
        return passed("bundle", _HOLDS[question.holds])
    others = " or ".join(engine.holds)
    return failed(
        "bundle",
        "compile.bundle.holds",
        asked,
        f"the compiled set of engine {engine.name} holds {others}: "
        + (
            "its server shards nothing itself and finds no weights beside it"
            if asked == "graph"
            else "its servers shard the model's own files when they start"
        ),
        f"Use {others}, or leave it out.",
    )


_HOLDS = {
    "weights": "the set holds the weights, sharded: servers start faster, and new weights are a new set",
    "graph": "the set holds the graph only: new weights of the same shape are served by it",
}


def _words(values: tuple[int, ...]) -> str:
    return " or ".join(str(value) for value in values)
