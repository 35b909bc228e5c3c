"""Print what repo2docker makes of the working folder, as JSON; runs in repo2docker's environment.

Nothing is built: the build pack is picked as repo2docker's own application picks it,
and asked for the Dockerfile. ``asked`` are the names of all the files for which it
looks in the folder of its configuration.
"""

import json

from repo2docker.app import Repo2Docker
from repo2docker.buildpacks import BuildPack
from repo2docker.utils import get_platform

asked = set()
find = BuildPack.binder_path


def record(pack, name):
    """Note the name, then find the file as before."""
    asked.add(name)
    return find(pack, name)


BuildPack.binder_path = record

application = Repo2Docker()
chosen = next(kind for kind in application.buildpacks if kind(application.base_image).detect())
asked.clear()  # what other build packs look for is of no use to this one
picked = chosen(application.base_image)
picked.platform = get_platform()
dockerfile = picked.render()

print(
    json.dumps(
        {
            "pack": chosen.__name__,
            "folder": picked.binder_dir,
            "python": picked.python_version,
            "asked": sorted(asked),
            "dockerfile": dockerfile,
        }
    )
)
