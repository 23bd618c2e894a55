"""What to change, from the figures alone: a rule speaks where it applies and was measured, and says its number."""

from collections.abc import Callable, Iterator

from holdfast.profiling.measured import AT_ONCE, BATCH_ROWS, USUAL_AT_ONCE, Advice, Case, Form, Live, Profile

MODEL_SHARE = 0.5
"""A model that takes more of a request than this stands out."""
RECORD_SHARE = 0.15
GENERAL_SHARE = 0.1
"""More requests than this in an unusual form stand out."""
FORM_RATIO = 1.2
"""A form that costs so many times another one stands out."""
BATCH_GAIN = 1.5
SINGLE_SHARE = 0.5
CACHE_GAIN = 0.05
"""A cache that saves less of a request than this is not worth its memory."""
QUEUE_SHARE = 0.5
QUEUE_P99_US = 1_000.0
FEWEST_REQUESTS = 1_000
"""Fewer live requests say little."""
LAG_S = 0.25


def advice_of(profile: Profile) -> tuple[Advice, ...]:
    """Everything that stands out, by what is most worth to know; empty where nothing does."""
    return tuple(advice for rule in RULES for advice in rule(profile))


def usual_at_once(profile: Profile) -> int:
    """Requests per tick that advice goes by: what was measured nearest to what the workers see, or a busy worker's."""
    live = profile.live
    if live is None or live.requests < FEWEST_REQUESTS or not live.requests_per_run:
        return USUAL_AT_ONCE
    seen = live.requests_per_run
    return min(AT_ONCE, key=lambda at_once: max(at_once / seen, seen / at_once))


def usual_case(profile: Profile) -> Case | None:
    """The case that advice goes by: plain rows, so many in a tick as is usual for the system.

    None where plain rows are no usual form of the system's requests, so that their stages are not known.
    """
    return _staged(profile, usual_at_once(profile))


def _staged(profile: Profile, at_once: int) -> Case | None:
    case = profile.case("object", at_once)
    return case if case is not None and case.stages else None


def _model(profile: Profile) -> Iterator[Advice]:
    case = usual_case(profile)
    if case is None or case.stage("run").share <= MODEL_SHARE:
        return
    run, model = case.stage("run"), profile.model
    took = f"running it takes {run.share:.0%} of a request, {run.us:.1f} of {case.cpu_us:.1f} us, on '{model.runtime}'"
    if model.faster and not model.why_not:
        yield Advice(
            about="model",
            change="train it again: the training will try a faster runtime",
            why=f"{took}; '{model.faster}' takes the same file, but was not tried when this version was trained",
        )
        return
    if model.faster:
        took += f"; the faster '{model.faster}' does not take it: {model.why_not}"
    elif model.runtime == "lightgbm":
        took += f", which serves what ONNX does not: {model.parity}"
    else:
        took += ", for which there is no faster one here"
    yield Advice(about="model", change=_smaller(profile), why=took)


def _smaller(profile: Profile) -> str:
    model = profile.model
    unknown = "what that costs in quality is not known here: train it, and its gates say"
    if model.trees is None:
        return f"try a smaller model; {unknown}"
    return f"try fewer trees or leaves than {model.trees:,} trees of up to {model.most_leaves} leaves; {unknown}"


def _durability(profile: Profile) -> Iterator[Advice]:
    case, sync_us = usual_case(profile), profile.recording.sync_us
    if case is None or sync_us is None:
        return
    work_us = case.at_once * case.cpu_us
    if sync_us > work_us:
        many = "a request" if case.at_once == 1 else f"{case.at_once} requests"
        yield Advice(
            about="durability",
            change="more requests at once share a sync, or take a disk that syncs faster; serve.record: process needs "
            "none, and survives the death of the process but not a power cut",
            why=f"one sync to the disk takes {sync_us / 1000:.2f} ms, all the work for {many} {work_us / 1000:.2f} ms",
        )


def _recording(profile: Profile) -> Iterator[Advice]:
    case, most = usual_case(profile), _staged(profile, AT_ONCE[-1])
    if case is None or most is None or case.stage("record").share <= RECORD_SHARE:
        return
    record, facts = case.stage("record"), profile.recording
    why = f"recording takes {record.share:.0%} of a request, {record.us:.1f} of {case.cpu_us:.1f} us"
    once_us = record.us - most.stage("record").us
    if once_us > record.us / 2:
        yield Advice(
            about="recording",
            change="several rows in a request share it; so do requests, by themselves, when more come at a time",
            why=f"{why}; {once_us:.1f} of them are paid once per tick, however many rows it records",
        )
        return
    write_us = 0.0 if facts.record == "memory" else facts.write_us
    texts_us = facts.whole_us - facts.without_texts_us
    if texts_us > max(write_us, facts.whole_us - texts_us - write_us):
        change = "leave out text columns that the model does not need, or send codes: numbers are recorded in one piece"
        why += f"; most of it are {profile.model.texts} text columns, {texts_us:.1f} of {facts.whole_us:.1f} us a row"
    elif write_us > facts.whole_us - texts_us - write_us:
        change = "serve.record: memory does not wait for the write, and may lose a second when a process dies"
        why += f"; most of it is the call of write(2), {write_us:.1f} of {facts.whole_us:.1f} us a row"
    else:
        change = "that is the price of answers on record; serve.record: none saves it, and then nothing can be watched"
        why += f"; most of it are ids, times and checksums of {facts.row_bytes:.0f} bytes a row"
    yield Advice(about="recording", change=change, why=why)


def _forms(profile: Profile) -> Iterator[Advice]:
    named = profile.case("named", USUAL_AT_ONCE)
    better: tuple[Form, ...] = ("object", "packed")
    others = [case for form in better if (case := profile.case(form, USUAL_AT_ONCE)) is not None]
    if named is None or not others:
        return
    best = min(others, key=lambda case: case.cpu_us)
    if named.cpu_us > FORM_RATIO * best.cpu_us:
        yield Advice(
            about="form",
            change="if clients send one tensor per column: send "
            + ("one tensor with all columns" if best.form == "packed" else "rows as objects to /predict"),
            why=f"that costs {best.cpu_us:.1f} us a request, {profile.model.columns} named tensors {named.cpu_us:.1f}",
        )


def _never_usual(profile: Profile) -> Iterator[Advice]:
    case = profile.case("object", USUAL_AT_ONCE)
    if case is not None and not case.stages:
        yield Advice(
            about="usual form",
            change="have a key and a unit that are text, or no inputs, and no input called 'rows' (docs/serving.md)",
            why=f"plain rows of this system are no usual requests, so each goes the general way, {case.cpu_us:.1f} us",
        )


def _general(profile: Profile) -> Iterator[Advice]:
    live, case = profile.live, profile.case("general", USUAL_AT_ONCE)
    plain = _staged(profile, USUAL_AT_ONCE)
    if live is None or case is None or plain is None or live.requests < FEWEST_REQUESTS:
        return
    share = live.general / live.requests
    if share > GENERAL_SHARE and case.cpu_us > FORM_RATIO * plain.cpu_us:
        yield Advice(
            about="usual form",
            change="send requests in their usual form (docs/serving.md): no parameters, no named version, types as "
            "GET /v2/models/NAME says them",
            why=f"{share:.0%} of {live.requests:,} requests came in another one; such a request costs about "
            f"{case.cpu_us:.1f} us instead of {plain.cpu_us:.1f}",
        )


def _batches(profile: Profile) -> Iterator[Advice]:
    single, batch = usual_case(profile), profile.case("object", 1, BATCH_ROWS)
    share = profile.inputs.single
    if single is None or batch is None or share is None or share <= SINGLE_SHARE:
        return
    gain = single.cpu_us / batch.row_us if batch.row_us else 0.0
    if gain > BATCH_GAIN:
        yield Advice(
            about="batches",
            change="where a client has several rows at hand, send them in one request",
            why=f"{share:.0%} of the newest requests had one row; in requests of {BATCH_ROWS} a row costs "
            f"{batch.row_us:.1f} us instead of {single.cpu_us:.1f}: {gain:.1f} times less",
        )


def _cache(profile: Profile) -> Iterator[Advice]:
    case, repeats = _staged(profile, USUAL_AT_ONCE), profile.repeats  # looking up was measured so
    if case is None or repeats is None:
        return
    run_us = case.stage("run").us
    saved_us = repeats.share * run_us - repeats.lookup_us
    again = f"{repeats.share:.0%} of the newest {repeats.rows:,} rows had come before"
    if not profile.cache and saved_us > CACHE_GAIN * case.cpu_us:
        yield Advice(
            about="cache",
            change=f"serve.cache: {repeats.size}, if the same inputs always give the same answer",
            why=f"{again}; of {case.cpu_us:.1f} us a request, {case.at_once} a tick, that would save "
            f"{saved_us:.1f}, looking up included",
        )
    elif profile.cache and saved_us < 0:
        yield Advice(
            about="cache",
            change="serve.cache: 0",
            why=f"{again}; that saves {repeats.share * run_us:.1f} us a row, and looking up costs "
            f"{repeats.lookup_us:.1f}",
        )


def _queue(profile: Profile) -> Iterator[Advice]:
    live = profile.live
    if live is None or live.requests < FEWEST_REQUESTS:
        return
    why = _waiting(live)
    if not why:
        return
    if live.workers < profile.cores:
        change = f"holdfast up --workers {profile.cores}"
        why += f"; {live.workers} of {profile.cores} cores have a worker"
    else:
        change = "another machine, or make a request cheaper: every core has a worker"
    yield Advice(about="queue", change=change, why=why)


def _waiting(live: Live) -> str:
    """What says that requests wait too long for their turn; empty where they do not."""
    turned_away = live.refused.get(429, 0)
    if turned_away:
        return f"{turned_away:,} requests were answered 429 because the queue was full"
    queue, request = live.part("queue"), live.part("request")
    if queue is None or request is None:
        return ""
    if queue.p99_us <= QUEUE_P99_US or queue.mean_us <= QUEUE_SHARE * request.mean_us:
        return ""
    return (
        f"a request waits {queue.mean_us:,.0f} of {request.mean_us:,.0f} us for its run, one in a hundred more than "
        f"{queue.p99_us:,.0f}"
    )


def _disk(profile: Profile) -> Iterator[Advice]:
    live = profile.live
    if live is None:
        return
    missed = live.shed + live.lost
    if missed:
        yield Advice(
            about="disk",
            change="look at the disk below the lake: is it full, slow or failing?",
            why=f"{missed:,} rows could not be recorded ({live.lost:,} of them refused)",
        )
    elif live.lag_s > LAG_S:
        yield Advice(
            about="disk", change="look at the disk below the lake", why=f"rows wait {live.lag_s:.1f} s to be recorded"
        )


RULES: tuple[Callable[[Profile], Iterator[Advice]], ...] = (
    _disk,
    _queue,
    _durability,
    _model,
    _cache,
    _batches,
    _recording,
    _never_usual,
    _general,
    _forms,
)
