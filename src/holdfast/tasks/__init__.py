"""Tasks: what is answered and how it is scored."""

KINDS = {
    "classification": "holdfast.tasks.classification:Classification",
    "multiclass": "holdfast.tasks.multiclass:Multiclass",
    "ranking": "holdfast.tasks.ranking:Ranking",
    "regression": "holdfast.tasks.regression:Regression",
}
