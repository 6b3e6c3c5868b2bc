"""`make bench`: the lab compared with its floor, the same steps by bare commands; writes bench/<time>.json.

The floor is what an expert would type who knows every flag and starts each command as early as possible: no notebooks,
no checks, no record. Both end at the same two marks: nodes Ready with DNS answering, and six bookinfo pods 2/2.
"""
