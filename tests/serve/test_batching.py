import asyncio

import pytest

from holdfast.errors import HoldfastError, Overloaded
from holdfast.serve import batching
from holdfast.serve.batching import Batcher
from holdfast.serve.requests import PredictRequest


def ask(row, id, n=1):
    return PredictRequest(request_id=id, rows=[row] * n)


def together(world, *requests, system="flights"):
    async def send():
        batcher = Batcher(world.plane)
        return await asyncio.gather(*(batcher.predict(system, r) for r in requests), return_exceptions=True)

    return asyncio.run(send())


def test_a_lone_request_does_not_wait(served, row):
    [answer] = together(served, ask(row, "q"))
    assert answer.outputs.tolist() == [1.08]


def test_each_request_gets_its_own_rows_back(served, row):
    requests = [ask(row | {"dep_hour": hour}, f"q{hour}", n=hour + 1) for hour in range(4)]
    answers = together(served, *requests)
    assert [a.outputs.tolist() for a in answers] == [[1 + hour / 100] * (hour + 1) for hour in range(4)]
    assert [a.request_id for a in answers] == [r.request_id for r in requests]
    assert served.models["v1"].batches == [10]


def test_large_ticks_are_run_in_pieces(served, row, monkeypatch):
    monkeypatch.setattr(batching, "MOST_ROWS", 5)
    answers = together(served, *(ask(row, f"q{i}", n=2) for i in range(6)), ask(row, "large", n=9))
    assert all(len(a.outputs) in (2, 9) for a in answers)
    assert served.models["v1"].batches == [4, 4, 4, 9]


def test_a_full_queue_refuses_and_empties_again(world, row):
    world.serve(queue=2)
    outcomes = together(world, *(ask(row, f"q{i}") for i in range(3)))
    assert [type(o) is Overloaded for o in outcomes] == [False, False, True]
    assert outcomes[2].retry_after_s > 0


def test_a_caller_that_goes_away_does_not_disturb_the_others(served, row):
    async def send():
        batcher = Batcher(served.plane)
        tasks = [asyncio.ensure_future(batcher.predict("flights", ask(row, f"q{i}"))) for i in range(2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    gone, answer = asyncio.run(send())
    assert isinstance(gone, asyncio.CancelledError)
    assert answer.outputs.tolist() == [1.08]
    assert served.recorded().height == 2


def test_nobody_is_left_waiting_when_the_data_plane_breaks(served, row, monkeypatch):
    def broken(batch):
        raise RuntimeError("broken")

    monkeypatch.setattr(served.plane, "run", broken)
    outcomes = together(served, ask(row, "q1"), ask(row, "q2"))
    assert [str(o).partition(";")[0] for o in outcomes] == ["the request failed (RuntimeError)"] * 2
    with pytest.raises(HoldfastError):
        raise outcomes[0]


def test_versions_switch_while_requests_run_and_none_fails(world, row):
    async def send():
        batcher = Batcher(world.plane)
        answers = []
        for i in range(60):
            if i % 7 == 0:
                world.serve(f"v{i % 3 + 1}", release=f"r{i}")
            tasks = [asyncio.ensure_future(batcher.predict("flights", ask(row, f"q{i}.{j}"))) for j in range(3)]
            await asyncio.sleep(0)
            if i % 5 == 0:
                world.serve(f"v{i % 2 + 1}", release=f"s{i}")
            answers += await asyncio.gather(*tasks)
        return answers

    answers = asyncio.run(send())
    assert len(answers) == 180
    for answer in answers:
        assert answer.outputs[0] == int(answer.versions[0]) + 0.08
    recorded = world.recorded()
    assert recorded.height == 180
    assert (recorded["out.probability"] - recorded["version"].cast(float)).round(6).unique().to_list() == [0.08]
