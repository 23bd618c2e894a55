"""River on simulated systems: ADWIN, DDM and KSWIN on the losses of rows, ADWIN on every number column.

The columns and KSWIN see at most so many rows a day, evenly spread, or they would take hours. A detector begins with
the last days of the reference, whose alarms do not count, and starts anew after an alarm.
"""

import numpy as np
from alarms_cases import finding, main
from river import drift

BEGIN = 14
"""Days of the reference that it begins with."""
COLUMN_ROWS, KSWIN_ROWS = 100, 25
LABEL_LAG = 1
GRIDS = {
    "ADWIN on losses": (0.05, 0.002, 1e-4, 1e-6, 1e-9, 1e-14, 1e-20),
    "ADWIN on columns": (0.002, 1e-5, 1e-8, 1e-12, 1e-20, 1e-30, 1e-50),
    "DDM on errors": (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.5),
    "KSWIN on losses": (0.005, 1e-4, 1e-6, 1e-9),
}
"""Parameters from the most to the least eager; River's default is among them."""
DEFAULTS = {"ADWIN on losses": 0.002, "ADWIN on columns": 0.002, "DDM on errors": 3.0, "KSWIN on losses": 0.005}


def detect(job, system):
    """Every case of one system: its days are those from the first one of the stream on, faulty from `onset`."""
    before = _days(job, job.reference(system), reference=True)[-BEGIN:]
    onset = job.facts["onsets"].get(str(system))
    found = []
    for case, rows in job.cases(system):
        stream = _days(job, rows)
        for name, grid in GRIDS.items():
            if name == "DDM on errors" and job.task != "classification":
                continue
            chosen = job.settings.get(f"River {name}")
            values = grid if chosen is None else tuple({float(chosen), DEFAULTS[name]})
            days = {value: _alarms(name, value, before, stream, onset) for value in values}
            found.append(
                finding(
                    f"River {name}",
                    system,
                    case,
                    default=days[DEFAULTS[name]],
                    grid={repr(value): alarms for value, alarms in days.items()},
                )
            )
    return found


def _days(job, rows, *, reference=False):
    """(day, columns (n, k), losses, errors, some of the losses) of each day."""
    labels, outputs = (rows[name].to_numpy().astype(float) for name in ("label", job.output))
    if job.task == "classification":
        p = np.clip(outputs, 1e-6, 1 - 1e-6)
        losses = -(labels * np.log(p) + (1 - labels) * np.log1p(-p))
        errors = ((outputs >= 0.5) != (labels == 1)).astype(int)
    else:
        losses = np.abs(labels - outputs)
        errors = np.zeros(len(losses), dtype=int)
    names = [name for name in job.inputs if name not in job.texts]
    columns = np.column_stack([rows[name].to_numpy().astype(float) for name in names])
    days = np.arange(rows.num_rows) * job.facts["before"] // rows.num_rows if reference else rows["day"].to_numpy()
    found = []
    for day in np.unique(days):
        at = np.flatnonzero(days == day)
        known = at[~np.isnan(labels[at])]
        some = losses[_spread(known, KSWIN_ROWS)]
        found.append((int(day), columns[_spread(at, COLUMN_ROWS)], losses[known], errors[known], some))
    return found


def _spread(places, most):
    """At most so many of them, evenly spread."""
    if len(places) <= most:
        return places
    return places[np.linspace(0, len(places) - 1, most).astype(int)]


def _alarms(name, value, before, stream, onset):
    if name == "ADWIN on columns":
        many = [
            _run(
                lambda: drift.ADWIN(delta=value),
                [(day[0], day[1][:, k]) for day in before],
                [(day[0], day[1][:, k]) for day in stream],
                onset,
            )
            for k in range(stream[0][1].shape[1])
        ]
        return sorted({day for days in many for day in days})
    make = {
        "ADWIN on losses": lambda: drift.ADWIN(delta=value),
        "DDM on errors": lambda: drift.binary.DDM(drift_threshold=value, warning_threshold=min(2.0, value)),
        "KSWIN on losses": lambda: drift.KSWIN(alpha=value, seed=7),
    }[name]
    k = {"ADWIN on losses": 2, "DDM on errors": 3, "KSWIN on losses": 4}[name]
    found = _run(make, [(one[0], one[k]) for one in before], [(one[0], one[k]) for one in stream], onset)
    return [day + LABEL_LAG for day in found]


def _run(make, before, stream, onset):
    """Days on which it alarmed; in a stream with a fault only until the first one from its onset on."""
    detector, days = make(), []
    for day, values in [(None, values) for _, values in before] + stream:
        drifted = False
        for value in values[~np.isnan(values)].tolist() if values.dtype == float else values.tolist():
            detector.update(value)
            if detector.drift_detected:
                drifted, detector = True, make()
        if drifted and day is not None:
            days.append(day)
            if onset is not None and day >= onset:
                break
    return days


if __name__ == "__main__":
    main(detect)
