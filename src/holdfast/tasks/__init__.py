"""Tasks: what is answered and how it is scored."""

KINDS = {
    "classification": "holdfast.tasks.classification:Classification",
    "multiclass": "holdfast.tasks.multiclass:Multiclass",
    "regression": "holdfast.tasks.regression:Regression",
}
