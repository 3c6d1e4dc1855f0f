"""Before a container runs: its image, or why there is none; its program, or why it cannot be started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local.kubelet.images import Image, pull_error

if TYPE_CHECKING:
    from local.kubelet.container import Container


async def pull(container: Container) -> Image | None:
    """The image; waits with back-off while there is none; None once stopped."""
    name = container.spec["image"]
    settings = container.context.host.settings
    delay = settings.backoff_base
    while not container.stopping.is_set():
        image = container.context.host.images.find(name)
        if image is not None:
            if container.spec.get("imagePullPolicy") == "Always":
                container.event("Normal", "Pulling", f'Pulling image "{name}"')
                took = "1ms (1ms including waiting)"
                text = f'Successfully pulled image "{name}" in {took}. Image size: {image.size} bytes.'
                container.event("Normal", "Pulled", text)
            else:
                text = f'Container image "{name}" already present on machine and can be accessed by the pod'
                container.event("Normal", "Pulled", text)
            return image
        error = pull_error(name)
        if container.spec.get("imagePullPolicy") == "Never":
            container.state.wait(
                "ErrImageNeverPull", f'Container image "{name}" is not present with pull policy of Never'
            )
            container.event(
                "Warning",
                "ErrImageNeverPull",
                container.state.waiting["message"] if container.state.waiting else "",
            )
            container.context.changed()
            await container.pause(delay)
            continue
        container.event("Normal", "Pulling", f'Pulling image "{name}"')
        container.event("Warning", "Failed", f'Failed to pull image "{name}": {error}')
        container.event("Warning", "Failed", "Error: ErrImagePull")
        container.state.wait("ErrImagePull", error)
        container.context.changed()
        await container.pause(min(1.0, delay / 2))
        if container.stopping.is_set():
            break
        container.event("Normal", "BackOff", f'Back-off pulling image "{name}"')
        container.event("Warning", "Failed", "Error: ImagePullBackOff")
        container.state.wait("ImagePullBackOff", f'Back-off pulling image "{name}": ErrImagePull: {error}')
        container.context.changed()
        await container.pause(delay)
        delay = min(delay * 2, settings.backoff_max)
    return None


def start_error(program: str, error: OSError) -> tuple[str, int]:
    """containerd's words, and the exit code, for a program that cannot be run."""
    if not isinstance(error, FileNotFoundError):
        detail, code = f'exec: "{program}": {str(error.strerror).lower()}', 128
    elif "/" in program:
        detail, code = f'exec: "{program}": stat {program}: no such file or directory', 127
    else:
        detail, code = f'exec: "{program}": executable file not found in $PATH', 127
    text = (
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: "
        f"runc create failed: unable to start container process: error during container init: {detail}"
    )
    return text, code
