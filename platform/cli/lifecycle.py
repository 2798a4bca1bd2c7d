"""`hekla up` and `hekla down`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from hekla.platform.base.errors import HeklaError


def register(app: typer.Typer) -> None:
    """Add the life-cycle verbs to the CLI."""
    app.command("up")(up)
    app.command("down")(down)


def up(
    address: Annotated[
        str,
        typer.Option(
            help="Ray cluster to join: host:port, or auto. Without it, Ray starts here.", envvar="RAY_ADDRESS"
        ),
    ] = "",
    home: Annotated[str | None, typer.Option(help="Folder of the store and the model cache (~/.hekla).")] = None,
    host: Annotated[str | None, typer.Option(help="Address the endpoint listens on (127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the endpoint (8000).")] = None,
    data_plane: Annotated[str | None, typer.Option(help="direct or haproxy; see docs/settings.md.")] = None,
    auth: Annotated[str | None, typer.Option(help="Ask callers for keys: off, optional or required.")] = None,
    ingress_replicas: Annotated[int | None, typer.Option(help="Ingress replicas (2).")] = None,
    num_cpus: Annotated[int | None, typer.Option(help="CPUs the started Ray offers (all of the machine's).")] = None,
    dashboard: Annotated[bool, typer.Option(help="Start Ray's dashboard; `ray job submit` needs it.")] = True,
    access_log: Annotated[str | None, typer.Option(help="stdout, stderr, a path, or off.")] = None,
    access_log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
    apply: Annotated[
        list[str] | None, typer.Option(help="Manifest to apply once up, waiting until it is ready; repeatable.")
    ] = None,
) -> None:
    """Start Ray and hekla here, or join a Ray cluster. Doing it twice changes nothing."""
    # Ray takes a second to import: only the verbs that need it pay.
    from hekla.platform.cli.output import fail, progress
    from hekla.platform.root.settings import PlatformSettings

    try:
        settings = PlatformSettings.read(
            os.environ,
            home=home,
            host=host,
            port=port,
            data_plane=data_plane,
            auth=auth,
            ingress_replicas=ingress_replicas,
            access_log=access_log,
            access_log_format=access_log_format,
            log_level=log_level,
        )
        os.environ.update(settings.serve_environment)
        # Only now: Ray Serve reads its switches when it is imported.
        from hekla.platform.root.lifecycle import RayOptions
        from hekla.platform.root.lifecycle import up as bring_up

        found = bring_up(settings, RayOptions(address=address, num_cpus=num_cpus, dashboard=dashboard), progress)
    except (HeklaError, OSError) as error:
        fail(error)
    if apply:
        from hekla.platform.cli.apply import apply_and_wait

        os.environ["HEKLA_HOME"] = str(settings.home_path)  # where the SDK looks for the admin key
        apply_and_wait(found.endpoint, apply)


def down(
    home: Annotated[str | None, typer.Option(help="Folder given to `hekla up` (~/.hekla).")] = None,
    purge: Annotated[bool, typer.Option(help="Also forget every object and remove cached models and logs.")] = False,
) -> None:
    """Stop everything `hekla up` started here. Objects stay in the store unless --purge."""
    from hekla.platform.cli.output import fail, progress
    from hekla.platform.root.lifecycle import down as bring_down
    from hekla.platform.root.settings import PlatformSettings

    try:
        settings = PlatformSettings.read(os.environ, home=home)
        leftovers = bring_down(settings.home_path, progress)
    except (HeklaError, OSError) as error:
        fail(error)
    if leftovers:
        kept = "; nothing is purged while that is there" if purge else ""
        fail(HeklaError(f"left behind: {', '.join(leftovers)}{kept}"))
    if purge:
        progress(f"removing objects, logs and cached models from {settings.home_path}")
        _forget(settings.home_path, settings.store_path, settings.cache_path)


def _forget(home: Path, store: Path, cache: Path) -> None:
    """Only what hekla wrote: the home may be a folder that has other things in it."""
    files = ("ray-start.log", "admin-key", "api-token")
    for path in (
        store,
        *(store.with_name(store.name + end) for end in ("-wal", "-shm")),
        *(home / file for file in files),
    ):
        path.unlink(missing_ok=True)
    for folder in (cache, home / "logs"):
        shutil.rmtree(folder, ignore_errors=True)
    if home.is_dir() and not any(home.iterdir()):
        home.rmdir()
