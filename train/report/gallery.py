"""The figures of a report: which there are, and what is said of each."""

from __future__ import annotations

import textwrap

import numpy as np
import torch

from oodserve.scores import msp
from train.evaluation import probes
from train.evaluation.document import Evaluation
from train.evaluation.run import Evaluated
from train.figures.curves import risk_coverage_curves, roc
from train.figures.densities import confidence_densities, interpolation_densities
from train.figures.images import saliency_overlays, synthesised_outliers
from train.figures.logits import logit_norms, logit_plane, sample_logits
from train.figures.scores import score_histogram
from train.methods.synthesis.settings import SynthesisSettings
from train.recipes import SYNTHESISED
from train.report.page import Picture
from train.run import TrainedRun

PAIRS = 400
"""Pictures that are interpolated, at most."""
SHOWN = 8
"""Pictures in a row."""


def gallery(run: TrainedRun, done: Evaluated) -> list[Picture]:
    """Return every figure of a run; those that do not apply to its model are left out."""
    found = [*_score_pictures(done), *_logit_pictures(done), *_mixing_pictures(run, done)]
    of_images = (_outlier_picture(run, done), _saliency_picture(run, done))
    return [*found, *(picture for picture in of_images if picture is not None)]


def _score_pictures(done: Evaluated) -> list[Picture]:
    evaluation, sets = done.evaluation, done.sets
    found = []
    for item in evaluation.selective:
        score, tau = item.score, None if item.at_tau is None else item.at_tau.tau
        outside = {name: scored.scores[score] for name, scored in sets.ood.items()}
        areas = "; ".join(
            f"{name} {100 * evaluation.detection(name, score).auroc:.1f} %" for name in outside
        )
        found += [
            Picture(
                name=f"scores-{score}",
                title=f"Scores: {score}",
                caption="Known test images against each set; the line is tau.",
                alternative=f"Histograms of {score} for known images and {_listed(evaluation)}. "
                f"AUROC: {areas}.{_tau_words(evaluation, score)}",
                figure=score_histogram(sets.test.scores[score], outside, score=score, tau=tau),
            ),
            Picture(
                name=f"roc-{score}",
                title=f"ROC: {score}",
                caption="Outliers are the positives; every threshold is a point.",
                alternative=f"ROC curves of {score}. AUROC: {areas}.",
                figure=roc(sets.test.scores[score], outside, score=score),
            ),
        ]
    return [*found, _risk_picture(done)]


def _risk_picture(done: Evaluated) -> Picture:
    items = done.evaluation.selective
    areas = "; ".join(f"{item.score} {100 * item.aurc:.2f} %" for item in items)
    return Picture(
        name="risk-coverage",
        title="Risk and coverage",
        caption="Answering only the known images with the highest scores: how many are answered, "
        "and how many of the answers are wrong. Marks are at tau.",
        alternative=f"Selective risk against coverage for each score. Area under it: {areas}. "
        f"Error rate with all answered: {100 * (1 - done.evaluation.accuracy):.2f} %.",
        figure=risk_coverage_curves(
            {item.score: done.sets.test.scores[item.score] for item in items},
            done.sets.wrong,
            coverage_at_tau={
                item.score: item.at_tau.coverage.value
                for item in items
                if item.at_tau is not None and item.at_tau.coverage.value is not None
            },
        ),
    )


def _logit_pictures(done: Evaluated) -> list[Picture]:
    inside = done.sets.test.logits
    outside = {name: scored.logits for name, scored in done.sets.ood.items()}
    # Rounding may pass 1 by one unit in the last place.
    confidence = msp(inside).clip(0, 1)
    others = {name: msp(logits).clip(0, 1) for name, logits in outside.items()}
    middle = "; ".join(
        f"{name} {np.median(values):.2f}"
        for name, values in {"known classes": confidence, **others}.items()
    )
    norms = "; ".join(
        f"{name} {np.median(np.linalg.norm(logits, axis=1)):.1f}"
        for name, logits in {"known classes": inside, **outside}.items()
    )
    return [
        Picture(
            name="confidence",
            title="Confidence",
            caption="Densities of the largest softmax probability. Unknown images near 1 are "
            "answered with confidence all the same.",
            alternative=f"Densities of confidence. Medians: {middle}.",
            figure=confidence_densities(confidence, others),
        ),
        Picture(
            name="logit-norms",
            title="Norms of the logits",
            caption="L2 norms; training with outliers is to make theirs small.",
            alternative=f"Histograms of the L2 norms of logits. Medians: {norms}.",
            figure=logit_norms(inside, outside),
        ),
        Picture(
            name="logit-plane",
            title="Plane of the logits",
            caption="The two principal axes of all logits together. The cross is where all logits "
            "are 0, and nothing is preferred.",
            alternative=f"Scatter plot of logits of known images and {_listed(done.evaluation)} "
            "on their two principal axes.",
            figure=logit_plane(inside, outside),
        ),
    ]


def _mixing_pictures(run: TrainedRun, done: Evaluated) -> list[Picture]:
    known, unknown, name = probes.pairs(
        done.splits.test.source, done.ood, most=PAIRS, seed=run.recipe.seed
    )
    device = next(run.model.parameters()).device
    inside = probes.load(known, run.input, device=device)
    outside = probes.load(unknown, run.input, device=device)
    confidences = probes.interpolated_confidences(run.model, inside, outside)
    rows = probes.mixed_logits(run.model, inside[0], outside[0])
    medians = "; ".join(f"{lam:g}: {np.median(v):.2f}" for lam, v in confidences.items())
    norms = "; ".join(f"{title} {np.linalg.norm(values):.1f}" for title, values in rows.items())
    return [
        Picture(
            name="interpolation",
            title="Between known and unknown",
            caption=f"Confidence on pictures mixed from known ones, with weight λ, and ones of "
            f"{name}. With half of the evidence, confidence should not stay at 1.",
            alternative=f"Densities of confidence on mixed pictures. Medians by λ: {medians}.",
            figure=interpolation_densities(dict(confidences)),
        ),
        Picture(
            name="sample-logits",
            title="Logits of one pair",
            caption=f"A known image, one of {name}, the mix of the two, and the mix of their "
            "logits. The nearer the last two, the more linear the model is between them.",
            alternative=f"Bars of the logits of four inputs. L2 norms: {norms}.",
            figure=sample_logits(dict(rows), classes=run.classes),
        ),
    ]


def _outlier_picture(run: TrainedRun, done: Evaluated) -> Picture | None:
    """Return what the synthesis makes of test images, where the run was trained with it."""
    method, data = run.recipe.method, run.recipe.data
    if isinstance(method, SynthesisSettings):
        settings: SynthesisSettings = method
    elif data.outliers == SYNTHESISED:
        settings = run.recipe.synthesis
    else:
        return None
    test, seed = done.splits.test, run.recipe.seed
    places = probes.choose(len(test), SHOWN, seed=seed, stream="report/outliers")
    device = next(run.model.parameters()).device
    images = probes.load(probes.Chosen(test.source, places), run.input, device=device)
    labels = torch.from_numpy(test.labels[list(places)]).to(device)
    outliers = probes.outliers_of(run.model, images, labels, settings, seed=seed)
    before, after = (probes.to_pictures(part, run.input) for part in (images, outliers))
    change = float(np.abs(after - before).mean())
    return Picture(
        name="synthesised-outliers",
        title="Synthesised outliers",
        caption="Test images, what the last epoch's synthesis makes of them, and the change.",
        alternative=f"{len(places)} test images above the outliers made from them. The mean change "
        f"of an intensity is {255 * change:.2f} of 255 levels.",
        figure=synthesised_outliers(
            before, after, titles=[test.classes[int(label)] for label in labels]
        ),
        kind="pictures",
    )


def _saliency_picture(run: TrainedRun, done: Evaluated) -> Picture | None:
    test, seed, device = done.splits.test, run.recipe.seed, next(run.model.parameters()).device
    share = max(1, SHOWN // (1 + len(done.ood)))
    places = probes.choose(len(test), share, seed=seed, stream="report/saliency")
    parts = [probes.load(probes.Chosen(test.source, places), run.input, device=device)]
    origins = [f"known: {test.classes[int(test.labels[place])]}" for place in places]
    for name, source in done.ood.items():
        drawn = probes.choose(len(source), share, seed=seed, stream=f"report/saliency/{name}")
        parts.append(probes.load(probes.Chosen(source, drawn), run.input, device=device))
        origins += [name] * len(drawn)
    seen = probes.activations(run.model, torch.cat(parts), run.input)
    if seen is None:
        return None
    taken = [run.classes[int(index)] for index in seen.predicted]
    words = "; ".join(
        f"{origin}, taken for {label}" for origin, label in zip(origins, taken, strict=True)
    )
    titles = [
        "\n".join([_in_lines(origin), _in_lines(f"→ {label}")])
        for origin, label in zip(origins, taken, strict=True)
    ]
    return Picture(
        name="saliency",
        title="Where the model looks",
        caption="Class activation of the predicted class, laid over each image; bright speaks for "
        "the class. Each map has a scale of its own.",
        alternative=f"Images with their class activation maps. {words}.",
        figure=saliency_overlays(
            seen.images, seen.maps, seen.weights, seen.predicted, titles=titles
        ),
        kind="pictures",
    )


def _listed(evaluation: Evaluation) -> str:
    return ", ".join(evaluation.ood_sets)


def _tau_words(evaluation: Evaluation, score: str) -> str:
    (item,) = [item for item in evaluation.selective if item.score == score]
    if item.at_tau is None or item.at_tau.false_alarms.value is None:
        return ""
    rate = 100 * item.at_tau.false_alarms.value
    return f" Tau is {item.at_tau.tau:.4g}; {rate:.1f} % of the known images are below it."


def _in_lines(text: str) -> str:
    """Return a name in lines that are no wider than a small picture."""
    return textwrap.fill(text.replace("_", " "), 14)
