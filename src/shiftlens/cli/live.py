"""`explore`: a page on this machine on which a model answers while an image is dragged."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell

SHIPPED = "pretrained:vgg-cifar10"


def explore(
    shell: Shell,
    model: o.OptionalModel,
    images: o.ImageOptions,
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
) -> None:
    """Open a page on which a classifier answers while an image, or a photo of your own, is dragged.

    It shows the scores, the maps of a layer, and the same net with another padding beside it. The page is served on
    127.0.0.1 only, at an address with a token, until Ctrl+C. Without --model it starts on the shipped VGG.

    Example: shiftlens explore --model torchvision:resnet18 --data folder:photos
    """
    from shiftlens import explorer

    explorer.refuse_without_server()
    shown = images.load(shell)
    loaded = replace(model, model=model.model or SHIPPED).load(shell, shown)
    live = explorer.explore(loaded, shown, port=port, device=model.device)
    shell.result({"address": live.address}, [live.address])
    shell.say("open this address in a browser on this machine; Ctrl+C ends it")
    with suppress(KeyboardInterrupt):
        live.run()
