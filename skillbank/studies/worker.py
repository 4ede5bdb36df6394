"""A process that performs one unit: ``python -m skillbank.studies.worker``.

The first line of its standard input is the order; it reports progress as lines of JSON on standard
output. When standard input closes, the process that started it is gone, and the worker exits too:
the steps since its last checkpoint would be repeated anyway.
"""

import json
import os
import sys
import threading
from pathlib import Path

from skillbank.errors import Busy, SkillbankError
from skillbank.studies.unit import Places, Unit

ORPHANED = 3  # exit code of a worker whose parent has gone


def main() -> None:
    """Perform the unit that standard input names."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    unit = Unit.model_validate_json(order["unit"])
    places = Places(Path(order["results"]), Path(order["work"]))
    parent = Path(order["parent"]) if order["parent"] else None
    said = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # other output must not mix in

    def say(**what: object) -> None:
        said.write(json.dumps(what) + "\n")
        said.flush()

    from skillbank.studies.performing import perform

    try:
        perform(unit, places, parent, lambda steps: say(steps=steps))
    except Busy:
        say(busy=True)
    except SkillbankError as error:
        say(failed="\n".join([str(error), *getattr(error, "__notes__", ())]))
    except Exception as error:
        say(failed=f"{type(error).__name__}: {error}")
        raise
    else:
        say(done=True)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(ORPHANED)


if __name__ == "__main__":
    main()
