"""The bookshop of chapter 14: deploying it, ordering, following an order, and counting what faults lose or double."""
