"""Tasks that are adopted; containers that are restarted, and whose health is looked at."""

from typing import Final

from tests.diaries.scenario import (
    CHECKED,
    RESTARTED,
    Scenario,
    adopted,
    adopted_between_two_runs,
    adopted_while_stopping,
    runs_of_web,
)

LIVES: Final = {
    "adopted while running": Scenario(
        arrange=adopted,
        diary="""
            log uri web / log uri log
            ready
            ensure netns / ensure storage / prepare
            exists web / exists log
            attach eth1
            listen
            hold secrets
            report RUNNING
            confirm eth1 / confirm eth1 / confirm eth1
            start web / start log
            save
            report RUNNING
            wait web / watch web / wait log / watch log
            report STOPPING
            ready
            save
            stop web
            stop log
            save
            drop secrets
            close
            detach eth1
            release netns / release storage / release
            report STOPPED
        """,
    ),
    "adopted while stopping": Scenario(
        arrange=adopted_while_stopping,
        diary="""
            ready
            save
            save
            stop web
            stop log
            drop secrets
            close
            detach eth1
            release netns / release storage / release
            report STOPPED
        """,
    ),
    "restarted once": Scenario(
        containers=RESTARTED,
        arrange=runs_of_web((60, 1), (59, 7)),
        diary="""
            log uri web
            ready
            ensure netns / ensure storage / prepare
            attach eth1
            listen
            hold secrets
            report PENDING
            confirm eth1
            pull web:1
            create web
            confirm eth1
            start web
            report RUNNING
            wait web / watch web
            save
            restart web
            save
            start web
            report RUNNING
            wait web / watch web
            report STOPPING
            ready
            stop web
            drop secrets
            close
            detach eth1
            release netns / release storage / release
            report STOPPED
        """,
    ),
    "adopted between two runs": Scenario(
        containers=RESTARTED,
        arrange=adopted_between_two_runs,
        diary="""
            log uri web
            ready
            ensure netns / ensure storage / prepare
            attach eth1
            listen
            hold secrets
            report RUNNING
            confirm eth1
            restart web
            save
            start web
            report RUNNING
            wait web / watch web
            report STOPPING
            ready
            stop web
            drop secrets
            close
            detach eth1
            release netns / release storage / release
            report STOPPED
        """,
    ),
    "one when the other is healthy": Scenario(
        containers=CHECKED,
        arrange=runs_of_web((7, 7)),
        diary="""
            log uri db / log uri web
            ready
            ensure netns / ensure storage / prepare
            attach eth1
            listen
            hold secrets
            report PENDING
            confirm eth1
            pull db:1 / pull web:1
            create db
            confirm eth1
            start db
            report PENDING
            wait db / watch db
            exec health in db
            report PENDING
            create web
            confirm eth1
            start web
            report RUNNING
            wait web / watch web
            exec health in db
            report STOPPING
            ready
            stop web
            save
            stop db
            save
            drop secrets
            close
            detach eth1
            release netns / release storage / release
            report STOPPED
        """,
    ),
}
