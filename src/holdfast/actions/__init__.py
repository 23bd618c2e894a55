"""Actions: each does one thing about an incident."""

KINDS = {
    "notify": "holdfast.actions.notify:Notify",
    "retrain": "holdfast.actions.retrain:Retrain",
    "rollback": "holdfast.actions.rollback:Rollback",
}
