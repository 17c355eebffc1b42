"""Adapters of the kinds of FedLD."""

from typing import Any

from fedlabels import aggregation, losses
from fedlabels.clients.fedld import warmup_rate
from tests.golden.convert import array, floats, gradients, integers, variable
from tests.golden.registry import adapter


@adapter("fedld.margin")
def margin(inputs: dict[str, Any]) -> dict[str, Any]:
    """Objective of FedLD's client on one batch, by its own function."""
    logits = variable(inputs["logits"])
    term = losses.margin_term(logits, form=inputs["options"]["form"])
    whole = losses.margin_loss(
        logits,
        integers(inputs["labels"]),
        margin_lambda=float(inputs["margin_lambda"]),
        form=inputs["options"]["form"],
    )
    return {
        "cross_entropy": whole.cross_entropy,
        "regularizer": whole.margin,
        "total": whole.total,
        "grad_logits_total": gradients(whole.total, logits)[0],
        "grad_logits_regularizer": gradients(term, logits)[0],
    }


@adapter("fedld.principal_gradient")
def principal_gradient(inputs: dict[str, Any]) -> dict[str, Any]:
    """Recombination of one tensor, with history."""
    updates = array(inputs["client_updates"])
    update, made = aggregation.aggregate_tensor(updates, has_history=True, rule=rule(inputs))
    assert made is not None
    return {
        "k": made.k,
        "eigenvalues": made.eigenvalues,
        "update": update,
        "client_coefficients": made.coefficients,
        "revised_rows": aggregation.combined(updates, made.mixing),
    }


@adapter("fedld.calibration_vote")
def calibration_vote(inputs: dict[str, Any]) -> dict[str, Any]:
    """The same with one sign a direction."""
    chosen = rule(inputs, calibration="vote")
    updates = array(inputs["client_updates"])
    update, _ = aggregation.aggregate_tensor(updates, has_history=True, rule=chosen)
    return {"update": update}


@adapter("fedld.aggregate_tensor")
def aggregate_tensor(inputs: dict[str, Any]) -> dict[str, Any]:
    """Rule of one tensor with its gate."""
    update, _ = aggregation.aggregate_tensor(
        array(inputs["client_updates"]),
        has_history=bool(inputs["has_history"]),
        rule=rule(inputs),
    )
    return {"update": update}


@adapter("fedld.rounds")
def rounds(inputs: dict[str, Any]) -> dict[str, Any]:
    """Several rounds: updates open the gates of the next ones."""
    histories: dict[str, Any] = dict.fromkeys(inputs["tensor_shapes"])
    out = []
    for given in inputs["rounds"]:
        update = {}
        for name, history in histories.items():
            update[name], _ = aggregation.aggregate_tensor(
                array(given[name]), has_history=aggregation.is_open(history), rule=rule(inputs)
            )
            histories[name] = aggregation.advanced_history(history, update[name])
        out.append({"update": update, "history": dict(histories)})
    return {"rounds": out}


@adapter("fedld.decomposition")
def decomposition(inputs: dict[str, Any]) -> dict[str, Any]:
    """Loss of the new model in three terms."""
    terms = aggregation.decompose(
        array(inputs["loss_matrix_row_model_col_data"]),
        array(inputs["global_model_loss_per_client"]),
        inputs["n_samples"],
    )
    return {
        "local": terms.local,
        "distribution_shift": terms.shift,
        "aggregation": terms.aggregation,
        "global_loss": terms.total,
        "per_client_global_loss": terms.everywhere,
    }


@adapter("fedld.warmup")
def warmup(inputs: dict[str, Any]) -> dict[str, Any]:
    """Rates of the first rounds."""
    rates = [
        warmup_rate(
            float(inputs["lr"]),
            local_epochs=int(inputs["local_epochs"]),
            round_index=index,
            warmup_epochs=int(inputs["warm_up_epochs"]),
        )
        for index, _ in enumerate(range(int(inputs["rounds"])), start=1)
    ]
    return {"lr_per_round": floats(rates)}


def rule(inputs: dict[str, Any], calibration: str = "none") -> aggregation.PrincipalRule:
    """Read the rule of an entry."""
    return aggregation.PrincipalRule(float(inputs["k_proportion"]), calibration)
