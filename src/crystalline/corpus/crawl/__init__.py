"""From start URLs to stored pages of websites: politely, and without losing anything.

`urls`, `scope`, `robots`, `reading`, `answers` and `addresses` are rules without a memory. `frontier` is the memory,
one SQLite file. `worker` is the process that fetches, `fetching` its loop around Scrapy's downloader; `engine` starts
it, `standing` tells how far it is, and `store` gives the pages to the stages after it.
"""
