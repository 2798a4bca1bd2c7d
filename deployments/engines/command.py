"""Any program that speaks OpenAI HTTP: run as the manifest says, on the port that is free here. Pure.

`--port N`, `--port=N` and `--host H` are replaced wherever they stand, inside a `sh -c` script too. `PORT` and `HOST`
are set in the environment; a program that takes its port in yet another way reads them.
"""

from __future__ import annotations

import re

from hekla.deployments.engines.plan import Plan, Site, group_env
from hekla.deployments.launch import EngineLaunch

_PORT = re.compile(r"(?P<flag>--port)(?P<gap>[=\s]+)(?P<value>\d+)")
_HOST = re.compile(r"(?P<flag>--host)(?P<gap>[=\s]+)(?P<value>[\w.:\[\]-]+)")


def plan(launch: EngineLaunch, site: Site) -> Plan:
    argv = _placed([*launch.command, *launch.args], site)
    env = {**group_env(launch, site), "HOST": site.node_ip, **launch.env}
    if site.model:
        env["HEKLA_MODEL_PATH"] = site.model
    return Plan(argv, {**env, "PORT": str(site.port)})


def _placed(words: list[str], site: Site) -> list[str]:
    placed = list(words)
    for index, word in enumerate(words):
        before = words[index - 1] if index else ""
        if before in ("--port", "--host"):
            placed[index] = str(site.port) if before == "--port" else site.node_ip
            continue
        word = _PORT.sub(rf"\g<flag>\g<gap>{site.port}", word)
        placed[index] = _HOST.sub(rf"\g<flag>\g<gap>{site.node_ip}", word)
    return placed
