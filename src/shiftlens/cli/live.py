"""`explore`: a page on this machine on which a model answers while an image is dragged."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Annotated

import typer

from shiftlens.cli import options as o
from shiftlens.cli.console import Shell


def explore(
    shell: Shell,
    model: o.OptionalModel,
    images: o.OptionalImages,
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
) -> None:
    """Open a page on which a model answers while an image, or a photo of your own, is dragged.

    It shows the classes, mask or boxes, the maps of a layer, and the same net with another padding beside it. The page
    is served on 127.0.0.1 only, at an address with a token, until Ctrl+C. Without --model it offers the shipped ones;
    without --data it shows images that fit the model, or says that they do not.

    Example: shiftlens explore --model torchvision:resnet18 --data folder:photos
    """
    from shiftlens import explorer

    explorer.refuse_without_server()
    shown = images.load(shell) if images.data else None
    # Options of the model without --model are meant for the shipped classifier.
    is_named = model != o.OptionalModel(device=model.device)
    named = replace(model, model=model.model or "pretrained:vgg-cifar10").load(shell, shown) if is_named else None
    live = explorer.explore(named, shown, port=port, device=model.device, data_root=images.data_root)
    shell.result({"address": live.address}, [live.address])
    shell.say("open this address in a browser on this machine; Ctrl+C ends it")
    with suppress(KeyboardInterrupt):
        live.run()
