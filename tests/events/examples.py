"""An event of each kind, to be changed in what a test is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from selfheal_cli.events import types as events
from selfheal_cli.events.event import Event
from selfheal_cli.records import (
    Advice,
    AliasMove,
    Diagnosis,
    Evaluation,
    LabelVerdict,
    MovedInput,
    Phase,
)  # fmt: skip
from selfheal_cli.scores import Scores

E = TypeVar("E", bound=Event)
AT = "2026-01-01T00:00:00.000+00:00"
SCORES = Scores(tp=30, tn=50, fp=10, fn=10)
OF_BATCH: Mapping[str, Any] = {"batch": 1}
ACTION: Mapping[str, Any] = {"batch": 1, "reason": "new labels"}
HEAL: Mapping[str, Any] = {**ACTION, "heal_id": "h1"}
JUDGED: Mapping[str, Any] = {
    **HEAL,
    "recipe": "anchored", "from_snapshot": "s1", "to_snapshot": "s2", "before": SCORES,
    "after": SCORES, "evaluation": Evaluation.HELD_OUT, "threshold": 0.5, "own_rows": True,
    "gate": {"worse_by": -0.1, "error": 0.05},
}  # fmt: skip
DIAGNOSIS = Diagnosis(
    100, 40, Advice.HEAL, (0.1, 0.4), True, True, False, (MovedInput("yes", "V14", 1.5),), 0.9,
    None, 0.6, "heal: the base rate moved",
)  # fmt: skip
EXAMPLES: Mapping[type[Event], Mapping[str, Any]] = {
    events.RunStarted: {
        "run_id": "r", "model": "fraud", "actor": "ann", "champion_move": 0, "config": {},
        "versions": {"selfheal": "0.1.0"},
    },
    events.ModelTrained: {
        "base": "b", "base_sha256": "0", "parameters": 10, "adapter_parameters": 2,
        "labels": ["no", "yes"], "rules": ["V14 < 0 => 1"], "rules_suggested": False,
        "sensitive": "V14", "mean": 0.0, "sd": 1.0, "batches": 3, "held_out": {},
    },
    events.SegmentRestored: {"base": "b", "base_sha256": "0", "segment": "DE", "version": 9,
                             "source": 4, "code": "7c41a5c93562"},
    events.ModelWrapped: {"base": "b", "base_sha256": "0", "origin": "net.py"},
    events.RowsTaken: {**OF_BATCH, "rows": 100, "offsets": {"answered": 1}},
    events.BatchScored: {
        **OF_BATCH,
        "rows": 100, "live": SCORES, "shadow": SCORES, "estimates": {}, "z": 0.5,
        "drifting": False, "conflicts": 3, "positive_share": 0.5, "pending_writes": 0,
        "state": "HEALTHY", "heal_requested": False, "reason": "",
    },
    events.BatchSetApart: {**ACTION, "rows": 100},
    events.LabelsArrived: {**OF_BATCH, "rows": 100, "live": SCORES, "shadow": SCORES},
    events.LabelsMatured: {**OF_BATCH, "rows": 100, "negatives": 90, "by": 5184000.0},
    events.LabelsCorrected: {
        **OF_BATCH,
        "rows": 100, "in_batch": 5, "live": SCORES, "shadow": SCORES, "was": SCORES,
        "was_shadow": SCORES,
    },
    events.LabelsRelearned: {**OF_BATCH, "rows": 3, "since": 2, "heals": 4, "beyond": 1},
    events.CandidatesCompared: {
        **OF_BATCH,
        "rows": 100, "positives": 40, "serving": "s3", "served": 31.5, "losses": {"s1": 45.25},
    },
    events.LabelsQuarantined: {
        **OF_BATCH,
        "rows": 100, "held_back": True,
        "verdict": LabelVerdict(True, 1, 0.9, 0.1, 9.0, False, "90.0% of 100 labels"),
    },
    events.Diagnosed: {**ACTION, "diagnosis": DIAGNOSIS},
    events.RuleStale: {**ACTION, "rule": "V14 < 0 => 1"},
    events.MonitorAlarmed: {
        **ACTION,
        "monitor": "psi", "threshold": 0.25, "triggers": "heal", "value": 0.5, "level": "alarm",
        "p": 0.0, "features": ["V14"],
    },
    events.PartFailed: {**ACTION, "part": "monitor 'tail'"},
    events.ColumnMoved: {
        **ACTION,
        "monitor": "missing", "column": "V14", "aspect": "missing", "since": 1, "rows": 100,
        "before": {"share": 0.0}, "now": {"share": 0.2}, "effect": 0.9, "p": 0.0,
        "threshold": 0.2,
    },
    events.SnapshotTaken: {
        **ACTION,
        "id": "s1", "phase": Phase.POST_HEAL, "sha256": "0", "scores": SCORES,
        "evaluation": Evaluation.HELD_OUT, "threshold": 0.5, "rejected": "", "parent": None,
        "heal_id": "h1",
    },
    events.SnapshotScored: {**OF_BATCH, "snapshot": "s1", "scores": SCORES},
    events.VersionRegistered: {"snapshot": "s1", "version": 1},
    events.HealPublished: JUDGED,
    events.HealRejected: {**JUDGED, "rejected": "it is worse"},
    events.CanaryBegan: {
        **JUDGED,
        "against": "s1", "share": 0.1, "by": "", "since": 10.0, "until": 20.0,
        "through": {"answered": 4},
    },
    events.CanaryOrdered: {
        **ACTION, "actor": "ann", "version": 5, "snapshot": "s2", "base": "", "against": "s1",
        "share": 0.1, "by": "", "since": 10.0, "until": 20.0, "through": {},
    },
    events.CanaryResumed: {
        **ACTION, "heal_id": "h1", "snapshot": "s2", "version": 5, "against": "s1", "share": 0.1,
        "by": "", "since": 10.0, "until": 20.0, "rows": 0, "through": {},
        "seen": {"count": 0, "mean": 0.0, "squares": 0.0},
    },
    events.CanaryCompared: {
        **OF_BATCH, "rows": 100, "positives": 3, "difference": 0.01, "low": None, "high": None,
        "seen": {"count": 1, "mean": 0.01, "squares": 0.0}, "rows_in_all": 100, "through": {},
    },
    events.CanaryEnded: {**ACTION, "outcome": "withdrawn"},
    events.HealLearned: {**HEAL, "change": 0.001, "needed": 0.003},
    events.HealFailed: {**HEAL, "worker_restarted": False},
    events.HealCoalesced: {**HEAL, "replaced_by": None},
    events.HealRefuted: HEAL,
    events.RolledBack: {
        **HEAL,
        "from_snapshot": "s3", "to_snapshot": "s2", "version": 2, "f1": 0.7, "rows": 100,
        "sha256": "0",
    },
    events.RollbackFailed: {**HEAL, "error": "nothing to restore"},
    events.RollbackDeclined: {**HEAL, "version": 2, "declined": "it is no better"},
    events.AliasMoved: {"move": AliasMove("fraud", "champion", 1, 2, "ann", AT, "heal h1")},
    events.SegmentsDrifted: {
        **ACTION,
        "by": "country", "pairs": 40, "rate": 0.05, "threshold": 0.1,
        "segments": [{"segment": "DE", "column": "V14", "effect": 0.4, "evidence": 7.1,
                      "rows": 210, "since": 1}],
    },
    events.SegmentsRanked: {
        **ACTION,
        "by": "country", "segments": 20, "drifted": [], "whole": {"V14": 0.01},
        "slices": [{"segment": "DE", "rows": 210, "labelled": 200, "wrong": 20,
                    "shadow_wrong": 30, "drifted": []}],
    },
    events.MoveRefused: {"key": "k", "alias": "champion", "reason": "somebody else moved it"},
    events.ChampionFollowed: {
        **ACTION, "from_snapshot": "s1", "version": 2, "move_sequence": 7, "actor": "bob"
    },
    events.HealingPaused: {**HEAL},
    events.HealWithheld: {
        **JUDGED,
        "mode": "auto", "withheld": "beyond the budget", "proposed": True, "changed": 0.12,
        "changed_in_all": 0.3,
    },
    events.ProposalMade: {
        "proposal": 7, "snapshot": "s2", "version": 5, "sha256": "0", "expires": AT,
        "reason": "heal h1",
    },
    events.ModeChanged: {**ACTION, "actor": "bob", "mode": "shadow", "order": 4},
    events.HealingHeld: {**ACTION, "actor": "bob"},
    events.HealingReleased: {**ACTION, "actor": "bob"},
    events.StreamStopped: OF_BATCH,
    events.RunFinished: {"outcome": "FINISHED"},
    events.RunResumed: {"actor": "ann", "batch": 3, "events": 20},
}  # fmt: skip

# what a line may leave out
OPTIONAL: Mapping[type[Event], Mapping[str, Any]] = {
    events.CanaryResumed: {"ordered": "ann", "base": "m-2"},
    events.CandidatesCompared: {"by_now": 30.5, "versions": {"s1": 3}},
    events.RunStarted: {"format": 2, "build": {"torch": "2"},
                        "parts": [{"kind": "rule", "name": "late", "distribution": "shop",
                                   "version": "1.0"}]},
    events.ModelTrained: {
        "sensitive_category": "a", "sensitive_auto": [{"feature": "V14", "share": 1.0}],
        "features": [], "features_in_all": 0, "positions": {"begin": {}, "stream": {"p": 1}},
        "training": "3 epochs",
    },
    events.BatchScored: {
        "shifts": [], "abstained": 0, "left_out": {"rows without an answer": 2},
        "monitors": {"psi": {"value": 0.1, "level": "quiet", "p": 1.0, "features": []}},
    },
    events.SegmentsRanked: {"unkeyed": 3, "beyond": 2},
    events.CanaryEnded: {
        "heal_id": "h1", "snapshot": "s2", "batches": 30, "rows": 3_000, "difference": 0.01,
        "low": 0.002, "high": 0.02, "by": "ann",
    },
    events.SnapshotTaken: {"same_as": "s0"},
    events.ColumnMoved: {
        "time": 1.5, "back": True, "unit": {"factor": 1.8, "offset": 32.0},
        "edges": [0.0, 1.0], "shares_before": [1.0], "shares_now": [1.0],
    },
    events.RuleStale: {
        "treatment": "drop", "now": "V14 < 1 => 1", "trained_rate": 0.1, "rate": 0.2,
        "rows": 100, "z": 4.0,
    },
    events.VersionRegistered: {"manifest": "0"},
    events.HealRefuted: {"to_snapshot": "s1"},
    events.RolledBack: {"passed_over": ["v3: gone"]},
    events.RollbackDeclined: {"passed_over": ["v3: gone"]},
    events.ChampionFollowed: {"to_snapshot": "s2", "error": "it is on another base"},
    events.RunFinished: {
        "ended_by": "bob", "stages": [], "evaluation": "", "verdict": {}, "costs": {},
        "base_unchanged": False, "serving_sha256": "0", "notes": {}, "departures": {},
        "compared": [],
    },
}  # fmt: skip


def diagnosed(batch: int, advice: Advice, sentence: str) -> events.Diagnosed:
    """A diagnosis that says this."""
    verdict = replace(DIAGNOSIS, advice=advice, sentence=sentence)
    return events.Diagnosed(batch=batch, reason="drift began", diagnosis=verdict)


def example(kind: type[E], **changes: Any) -> E:
    """An event of this kind, with these fields."""
    return kind(**{**EXAMPLES[kind], **changes})
