"""The local Kiwoom: a simulated market behind the broker's own wire, for machines that cannot reach the real one.

`server.serve` is the entry point. `catalog` lists the stocks, `market` moves their prices, `conditions` says which
stocks a saved condition holds, `exchange` strings trading days together, `protocol` is the server's side of one
WebSocket session, `recorded` plays a recorded day instead, `rest` answers tokens and TR calls, `faults` names what can
be made to go wrong, `control` is what tests ask beside the wire.
"""

from deploy.ports import PortTaken

from .server import serve

__all__ = ["PortTaken", "serve"]
