"""Tasks that no agent has run before."""

from typing import Final

from tests.diaries.scenario import (
    INIT_AND_APP,
    OTHER_ENI,
    ROUTED,
    Scenario,
    exits,
    stopped_before,
)
from tests.messages import container_json, eni_json

NEW_TASKS: Final = {
    "two containers side by side": Scenario(
        diary="""
            log uri web / log uri log
            ready
            ensure netns / ensure storage / prepare
            attach eth1
            listen
            hold secrets
            report PENDING
            confirm eth1
            pull web:1 / pull log:1
            create web / create log
            confirm eth1 / confirm eth1
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
    "one after the success of the other": Scenario(
        containers=INIT_AND_APP,
        exits=exits(init=0, app=0),
        diary="""
            log uri init / log uri app
            ready
            ensure netns / ensure storage / prepare
            attach eth1
            listen
            hold secrets
            report PENDING
            confirm eth1
            pull init:1 / pull app:1
            create init
            confirm eth1
            start init
            report PENDING
            wait init / watch init
            report PENDING
            create app
            confirm eth1
            start app
            report RUNNING
            wait app / watch app
            report STOPPING
            ready
            stop app
            stop init
            drop secrets
            close
            detach eth1
            release netns / release storage / release
            report STOPPED
        """,
    ),
    "two ENIs": Scenario(
        containers=(container_json("web"),),
        enis=(OTHER_ENI, eni_json()),
        diary="""
            log uri web
            ready
            ensure netns / ensure storage / prepare
            attach eth1
            attach eth2
            listen
            hold secrets
            report PENDING
            confirm eth1 / confirm eth2
            pull web:1
            create web
            confirm eth1 / confirm eth2
            start web
            report RUNNING
            wait web / watch web
            report STOPPING
            ready
            stop web
            drop secrets
            close
            detach eth2
            detach eth1
            release netns / release storage / release
            report STOPPED
        """,
    ),
    "a FireLens router with a secret": Scenario(
        containers=ROUTED,
        diary="""
            log uri router / log uri web
            ready
            ensure netns / ensure storage / prepare
            attach eth1
            listen
            hold secrets
            report PENDING
            confirm eth1
            pull router:1 / pull web:1
            fetch key
            create router
            confirm eth1
            start router
            report PENDING / wait router / watch router
            create web
            confirm eth1
            start web
            report RUNNING
            wait web / watch web
            report STOPPING
            ready
            stop web
            save
            stop router
            save
            drop secrets
            close
            detach eth1
            release netns / release storage / release
            report STOPPED
        """,
    ),
    "stopped while running": Scenario(
        containers=(container_json("web"),),
        exits={},
        stop_at="report RUNNING",
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
            report STOPPING
            ready
            save
            stop web
            save
            drop secrets
            close
            detach eth1
            release netns / release storage / release
            report STOPPED
        """,
    ),
    "stopped before it began": Scenario(
        containers=(container_json("web"),),
        arrange=stopped_before,
        diary="""
            log uri web
            ready
            ensure netns / ensure storage
            report STOPPING
            ready
            save
            stop web
            drop secrets
            close
            detach eth1
            release netns / release storage / release
            report STOPPED
        """,
    ),
}
