"""pyroute2, without the two thirds of it that the agent doesn't use.

The package imports all that it has when any of it is imported: 5 MB in each agent. What is used
here needs none of that, so the package stands there empty and its modules are imported one by one.
"""

import importlib
import importlib.util
import sys
from types import ModuleType


def _stand_in() -> None:
    found = importlib.util.find_spec("pyroute2")
    if found is None or found.submodule_search_locations is None:
        raise ImportError("pyroute2 is not installed")
    package = ModuleType("pyroute2")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["pyroute2"] = package


if "pyroute2" not in sys.modules:
    _stand_in()

AsyncIPRoute = importlib.import_module("pyroute2.iproute.linux").AsyncIPRoute
PyrouteError = importlib.import_module("pyroute2.netlink.exceptions").NetlinkError
