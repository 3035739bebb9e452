"""Finds what makes figures on a data set too good: copies, shared patients, wrong labels, tell-tale sources.

`scan` reads every image once; `findings` judges; `bias` asks how far the source gives the label away; `recover` gives
images their patients back from another data set; `page` writes what was found.
"""
