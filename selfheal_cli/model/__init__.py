"""The network: a frozen backbone, a small trainable adapter, a frozen head."""
