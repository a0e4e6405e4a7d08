"""Changes to the life of a task that a test must notice, and the tests that do."""

from dataclasses import dataclass
from typing import Final

RUNNER: Final = "fargate_agent/task/runner.py"
STEPS: Final = "fargate_agent/task/steps.py"
LIFE_OF_ONE: Final = "fargate_agent/task/life.py"
ORDER: Final = "fargate_agent/plan/order.py"
CONDITIONS: Final = "fargate_agent/task/conditions.py"
HEALTH: Final = "fargate_agent/task/health.py"
FACTS: Final = "fargate_agent/task/status.py"
SURROUNDINGS: Final = "fargate_agent/task/surroundings.py"
PULLS: Final = "fargate_agent/task/pulls.py"
SUPERVISOR: Final = "fargate_agent/task/supervisor.py"
STORE: Final = "fargate_agent/task/store.py"
REPORTER: Final = "fargate_agent/acs/reporter.py"

DIARIES: Final = "tests/unit/test_runner_diaries.py"
DEADLINES: Final = "tests/unit/test_runner_deadlines.py"
LIFE: Final = "tests/unit/test_runner.py"
LOST_LOGGER: Final = "tests/unit/test_lost_logger.py"
GRACE: Final = "tests/unit/test_stop_grace.py"
SUPERVISION: Final = "tests/unit/test_supervisor.py"
ADOPTION: Final = "tests/unit/test_supervisor_adoption.py"
REPORTS: Final = "tests/unit/test_reporter.py"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one file."""

    name: str
    file: str
    before: str
    """Stands once in the file."""
    after: str
    tests: tuple[str, ...]

    def apply(self, text: str) -> str:
        """Return the text with the change.

        Raises:
            ValueError: the text doesn't have what is to be changed, or more than once.
        """
        if text.count(self.before) != 1:
            raise ValueError(f"{self.name}: {self.file} has {text.count(self.before)} such places")
        return text.replace(self.before, self.after)


MUTATIONS: Final = (
    Mutation(
        "startTimeout is ignored",
        LIFE_OF_ONE,
        "return self._first_start_s + self.plan.start_timeout_s",
        "return None",
        (DEADLINES,),
    ),
    Mutation(
        "a stop gets 40 s whatever the stopTimeout",
        LIFE_OF_ONE,
        "async with asyncio.timeout(self.plan.stop_timeout_s + STOP_MARGIN_S):",
        "async with asyncio.timeout(STOP_MARGIN_S):",
        (DEADLINES,),
    ),
    Mutation(
        "an undo has no deadline",
        STEPS,
        "async with asyncio.timeout(step.undo_timeout_s):",
        "async with asyncio.timeout(None):",
        (DEADLINES,),
    ),
    Mutation(
        "ENIs are taken in the order of the message",
        "fargate_agent/plan/enis.py",
        "enumerate(sorted(messages, key=lambda eni: eni.index))",
        "enumerate(messages)",
        ("tests/unit/test_plan.py",),
    ),
    Mutation(
        "AttachmentIndex is 0",
        "fargate_agent/tmds/metadata.py",
        "attachment_index=index",
        "attachment_index=0",
        ("tests/unit/test_tmds_metadata.py",),
    ),
    Mutation(
        "the record isn't written when a task moves on",
        SUPERVISOR,
        "        await self._write(run.plan.id, self._entries[run.plan.id])\n",
        "",
        (SUPERVISION,),
    ),
    Mutation(
        "a later exit code overwrites the first",
        LIFE_OF_ONE,
        "elif not facts.has_ended:",
        "else:",
        (LIFE,),
    ),
    Mutation(
        "addresses aren't confirmed before the pull",
        RUNNER,
        "        await task.confirm_addresses()\n",
        "",
        (DIARIES,),
    ),
    Mutation(
        "addresses aren't confirmed before a container starts",
        LIFE_OF_ONE,
        "        await self._task.confirm_addresses()\n",
        "",
        (DIARIES,),
    ),
    Mutation(
        "a start doesn't wait for the runtime",
        RUNNER,
        "            await task.drivers.runtime.ready()\n            await do",
        "            await do",
        (DIARIES,),
    ),
    Mutation(
        "an undo doesn't wait for the runtime",
        RUNNER,
        "    await drivers.runtime.ready()\n    await containers",
        "    await containers",
        (DIARIES,),
    ),
    Mutation(
        "a stop is taken for a failure",
        RUNNER,
        "end = run.stop.result(), StopCode.USER_INITIATED",
        "pass",
        (LIFE,),
    ),
    Mutation(
        "a bug in a driver ends the agent",
        RUNNER,
        "    except Exception:  # a bug must not leave a half-built task",
        "    except LookupError:",
        (DIARIES,),
    ),
    Mutation(
        "the stop timeout begins anew with each agent",
        LIFE_OF_ONE,
        "if facts.stop_began_s is None and not facts.has_ended:",
        "if not facts.has_ended:",
        (GRACE,),
    ),
    Mutation(
        "a stop that can't be written down ends the agent",
        LIFE_OF_ONE,
        "except OSError as error:  # a full disk keeps nothing from ending",
        "except LookupError as error:",
        (GRACE,),
    ),
    Mutation(
        "a lost logger is not told of",
        LIFE_OF_ONE,
        "        await self._task.report()\n        await asyncio.Event().wait()",
        "        await asyncio.Event().wait()",
        (LOST_LOGGER,),
    ),
    Mutation(
        "a logger that ends with its container counts as lost",
        LIFE_OF_ONE,
        "await asyncio.sleep(LOGGER_END_S)",
        "await asyncio.sleep(0)",
        (LOST_LOGGER,),
    ),
    Mutation(
        "a failed undo ends the others",
        STEPS,
        "    except Exception:  # the other steps must still be undone",
        "    except LookupError:",
        (DIARIES,),
    ),
    Mutation(
        "metadata is served before the ENIs are attached",
        STEPS,
        "return [enis, [metadata]]",
        "return [[metadata], enis]",
        (DIARIES,),
    ),
    Mutation(
        "containers are stopped in the order of their start",
        LIFE_OF_ONE,
        "            await dependent.gone.wait()\n",
        "            pass\n",
        (DIARIES,),
    ),
    Mutation(
        "SUCCESS is COMPLETE",
        CONDITIONS,
        "case Condition.SUCCESS if facts.exit_code != 0:",
        "case Condition.SUCCESS if False:",
        (LIFE,),
    ),
    Mutation(
        "every container is essential",
        LIFE_OF_ONE,
        "        if self.plan.essential:\n            raise EssentialExitedError",
        "        if self.plan:\n            raise EssentialExitedError",
        (LIFE,),
    ),
    Mutation(
        "a container that vanished is made again",
        LIFE_OF_ONE,
        "if self.facts.started_at is not None:\n            raise",
        "if False:\n            raise",
        (LIFE,),
    ),
    Mutation(
        "a task of an earlier boot is started again",
        SUPERVISOR,
        "if record.boot_id != self._boot_id:",
        "if False:",
        (ADOPTION,),
    ),
    Mutation(
        "a stop isn't in the record",
        SUPERVISOR,
        "        entry.record.stop_reason = reason\n",
        "",
        (SUPERVISION,),
    ),
    Mutation(
        "a message that comes too late starts the task again",
        SUPERVISOR,
        "            self._over.append(task_id)\n",
        "",
        (SUPERVISION,),
    ),
    Mutation(
        "a change that is refused for good is sent for ever",
        REPORTER,
        'FINAL_ERRORS: Final = frozenset({"InvalidParameterException"})',
        "FINAL_ERRORS: Final = frozenset[str]()",
        (REPORTS,),
    ),
    Mutation(
        "a change is forgotten when the control plane can't be reached",
        REPORTER,
        "            else:\n                return\n            await asyncio",
        "            return\n            await asyncio",
        (REPORTS,),
    ),
    Mutation(
        "all tasks wait for the slowest report",
        REPORTER,
        "group.create_task(self._send_queue(task_arn, acknowledged))",
        "await self._send_queue(task_arn, acknowledged)",
        (REPORTS,),
    ),
)
