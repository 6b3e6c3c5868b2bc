"""The manifests that the chapters apply.

``${name}`` is filled in by :class:`string.Template`. Images are named per workload (``image_productpage_v1`` …),
because the official sample has one image per service and version, and the lab's own bookinfo one for all of them.
"""
