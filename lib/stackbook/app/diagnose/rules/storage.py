"""Storage: claims and their volumes."""

from __future__ import annotations

from collections.abc import Iterator

from stackbook.app.diagnose.findings import Cause
from stackbook.app.diagnose.snapshot import Snapshot, dig, named, space

LAYER = "storage"


def claims(snapshot: Snapshot) -> Iterator[Cause]:
    """No claim waits for a storage class that does not exist, or for a volume that nothing creates."""
    classes = {named(c): c for c in snapshot.cluster.items("storageclasses")}
    for claim in snapshot.cluster.items("claims"):
        if dig(claim, "status", "phase") != "Pending":
            continue
        wanted = dig(claim, "spec", "storageClassName", default="")
        known = classes.get(wanted)
        if known is not None and known.get("volumeBindingMode") == "WaitForFirstConsumer":
            continue
        seen = [f"status Pending, storageClassName {wanted or 'none'}"]
        seen.append(f"storage classes: {', '.join(classes) or 'none'}")
        yield Cause("claim-pending", LAYER, f"the claim {space(claim)}/{named(claim)} has no volume", tuple(seen),
                    snapshot.kubectl(f"-n {space(claim)} describe pvc {named(claim)}"), weight=0)  # fmt: skip


RULES = (claims,)
