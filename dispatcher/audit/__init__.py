"""The audit: whether what a pool keeps in the server agrees with itself, and with what its leader believes.

`checks` says what is wrong with what was read (pure), `looking` reads, `auditor` goes through a pool page by page and
looks again at whatever it suspects, `repairs` puts right what can be put right while a leader works.
"""
