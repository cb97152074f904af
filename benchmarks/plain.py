"""What one would write without ltml: 1,000 images of a folder through a pretrained network, once.

``python plain.py torch|onnxruntime NETWORK PHOTOS WEIGHTS``.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2


class Photos(Dataset):
    """The first 1,000 test images, decoded, resized and normalised as usual."""

    def __init__(self, root: Path):
        self.files = sorted((root / "test").iterdir())[:1000]
        steps = [v2.ToImage(), v2.Resize((224, 224), antialias=True)]
        steps += [v2.ToDtype(torch.float32, scale=True)]
        self.change = v2.Compose(
            [*steps, v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.change(Image.open(self.files[i]).convert("RGB"))


def network_of(name: str, weights: str) -> torch.nn.Module:
    """The network without its classifier."""
    if weights.endswith(".safetensors"):
        from safetensors.torch import load_file

        state = load_file(weights)
    else:
        state = torch.load(weights, weights_only=True)
    if name.startswith("timm/"):
        import timm

        network = timm.create_model(name.removeprefix("timm/"), num_classes=0, global_pool="")
    else:
        network = torchvision.models.get_model(name).features
        state = {key.removeprefix("features."): value for key, value in state.items()}
    network.load_state_dict(state, strict=False)
    return network.eval()


def session_of(network: torch.nn.Module):
    """The network as ONNX Runtime runs it, and the name of its input."""
    import onnxruntime

    example, batch = (torch.randn(2, 3, 224, 224),), ({0: torch.export.Dim("batch", min=1)},)
    options = {"dynamic_shapes": batch, "dynamo": True, "verbose": False}
    program = torch.onnx.export(network, example, **options)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    held = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(held, settings)
    return session, session.get_inputs()[0].name


def main() -> None:
    """Pass every image, and average its maps."""
    how, name, root, weights = sys.argv[1:]
    network = network_of(name, weights)
    if how == "onnxruntime":
        session, feed = session_of(network)
        batches = DataLoader(Photos(Path(root)), batch_size=4)
        features = [session.run(None, {feed: x.numpy()})[0].mean((2, 3)) for x in batches]
        features = np.concatenate(features)
    else:
        with torch.no_grad():
            batches = DataLoader(Photos(Path(root)), batch_size=64, num_workers=2)
            features = torch.cat([network(x).mean((2, 3)) for x in batches]).numpy()
    print(features.shape, features.mean())


if __name__ == "__main__":
    main()
