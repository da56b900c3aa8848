"""All that a child of the nursery may need, imported before it is born: the program, and the leader of one test.

A test's own modules come by themselves with what a child is to do.
"""

import pkgutil
from importlib import import_module

import agent_runtime
import bus
import callboard
import dispatcher
import metrics
import tests.integration.dying_dispatcher  # noqa: F401 - see above

for package in (agent_runtime, bus, callboard, dispatcher, metrics):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
for late in ("asyncio", "packaging.version", "pydantic_settings", "redis.asyncio", "uvicorn", "uvloop"):
    import_module(late)
