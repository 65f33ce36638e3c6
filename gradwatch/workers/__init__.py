"""Processes that work for this one; what comes back is in the order of what was asked.

Neither ``multiprocessing`` nor a fork: these run or copy the program that calls us, which may be a
training. A worker is a new interpreter that imports gradwatch, and is asked and answers by pickles
through pipes. One that dies takes nothing with it but the item that it died of.
"""
