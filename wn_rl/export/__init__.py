"""Trained agents to share: a folder of plain weights, an ONNX file and a model card; loading runs no code.

agent = load_exported("exported/breakout")         # or "owner/name" on the Hugging Face hub
q = agent.network(observations)                    # [B, K, *O] -> [B, A]
"""

from wn_rl.export.agent import Agent, load_exported
from wn_rl.export.folder import export, exported_files
from wn_rl.export.hub import push

__all__ = ["Agent", "export", "exported_files", "load_exported", "push"]
