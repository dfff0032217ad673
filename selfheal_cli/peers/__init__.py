"""PEERS: what a heal is compared with, from doing nothing to other people's libraries."""
