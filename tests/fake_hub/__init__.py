"""A local double of the Hugging Face Hub: the protocol of the real clients, on loopback, in memory.

`HubDouble` (server.py) reads requests and writes replies; `dispatch` (routing.py) finds the route, in accounts.py,
cards.py, repos.py, contents.py or uploads.py; `Store` (store.py) holds what is on the Hub, in commits that are all or
nothing; `Fault` (faults.py) makes chosen requests fail. A route that the double lacks is answered 501 and kept in
`HubDouble.gaps`, which the `hub` fixture checks after every test.
"""

from .faults import Fault
from .server import HubDouble

__all__ = ["Fault", "HubDouble"]
