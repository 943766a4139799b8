/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * buffer_pool.c - the buffer pool of a storage engine: pages of 4 KiB, 64 KiB and 2 MiB share one piece of memory.
 *
 *   database file   [ 4K 4K 4K ... | 64K 64K ... | 2M 2M ... ]     larger than the pool
 *   pool            [ 2M | 4K 64K . 4K | 2M | .... ]               folios, wherever there is room
 *                     ^ hand: the next place to look for room
 *
 * A resident page is one folio.  The pool holds one reference to it; whoever reads or writes the page holds a pin
 * besides.  What the pool knows of a page stands in the folio's own descriptor: owner (the pool), index (the number of
 * the page), and two owner flags (used since the hand came by, dirty).  So eviction needs no list: the hand walks the
 * descriptors in order of address, which also finds 2 MiB in one piece where a list of old pages would not.
 *
 * One thread, to stay short.  With several, a lock around the table of pages is all that has to be added, and each
 * thread calls mf_linux_thread_register(); counts and flags of folios are atomic as they are.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memfold/linux.h>
#include <memfold/memfold.h>

#define POOL_BYTES (64 * MF_MIB)
#define PAGE_SHIFT 12

/* Owner flags of a resident page. */
#define PAGE_USED MF_FLAG_USER0  /* since the hand came by */
#define PAGE_DIRTY MF_FLAG_USER1 /* to be written back     */

enum { NR_4K = 4096, NR_64K = 768, NR_2M = 40, NR_PAGES = NR_4K + NR_64K + NR_2M };
enum { NR_ACCESSES = 24000, NR_HELD = 6 };

/* One page of the database. */
struct page {
	uint64_t offset;        /* in the file                                        */
	unsigned order;         /* log2 of its frames                                 */
	struct mf_folio *folio; /* where it is resident, with the pool's reference     */
};

struct pool {
	struct mf_owner owner; /* the owner of every resident folio */
	struct mf_machine *machine;
	struct mf_map *map;
	unsigned region;
	mf_pfn_t nr_frames, hand;
	int file;
	struct page page[NR_PAGES];
	uint64_t hits, misses, evictions, writes;
};

static void fail_if(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "buffer_pool: %s: %s\n", what, mf_strerror(err));
	exit(1);
}

static void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "buffer_pool: it does not hold that %s\n", what);
	exit(1);
}

static size_t page_bytes(const struct page *page)
{
	return (size_t)1 << (page->order + PAGE_SHIFT);
}

/* ---- The pool --------------------------------------------------------------------------------------------- */

/* The last reference to a page is gone, the pool's and all pins: nobody can reach it now, so it is written back. */
static bool page_release(struct mf_map *map, struct mf_folio *folio, const struct mf_owner *owner)
{
	struct pool *pool = mf_container_of(owner, struct pool, owner);
	const struct page *page = &pool->page[folio->page.index];

	pool->evictions++;
	if (mf_folio_flags(folio) & PAGE_DIRTY) {
		ssize_t n = pwrite(pool->file, mf_folio_data(map, folio), page_bytes(page), (off_t)page->offset);

		require(n == (ssize_t)page_bytes(page), "a page can be written back");
		pool->writes++;
	}
	return false; /* the memory goes back to the allocator */
}

/* The pool's folio that covers or follows *pfn, with a reference; NULL when there is none before end. */
static struct mf_folio *pool_next(struct pool *pool, mf_pfn_t *pfn, mf_pfn_t end)
{
	struct mf_folio *seen, *folio;

	while (*pfn < end && (seen = mf_folio_next(pool->map, *pfn, end, pfn)) != NULL) {
		folio = mf_pfn_try_get(pool->map, mf_folio_pfn(pool->map, seen));
		if (!folio)
			continue; /* freed since we saw it */
		if (mf_folio_owner(folio) == &pool->owner)
			return folio;
		mf_folio_put(pool->map, folio);
	}
	return NULL;
}

/* Nothing in the range was used since the last time, or is pinned.  *next: where what it looked at ends. */
static bool range_is_cold(struct pool *pool, mf_pfn_t pfn, mf_pfn_t end, mf_pfn_t *next)
{
	struct mf_folio *folio;
	bool cold = true;

	while ((folio = pool_next(pool, &pfn, end)) != NULL) {
		cold = cold && !(mf_folio_flags(folio) & PAGE_USED) && mf_folio_pincount(folio) == 0;
		mf_folio_clear_flags(folio, PAGE_USED); /* the second chance is the last one */
		mf_folio_put(pool->map, folio);
	}
	*next = mf_max(pfn, end);
	return cold;
}

/* Drops the pool's references: unpinned pages leave at once, pinned ones with their last pin.  How many it dropped. */
static unsigned range_evict(struct pool *pool, mf_pfn_t pfn, mf_pfn_t end)
{
	struct mf_folio *folio;
	unsigned nr = 0;

	while ((folio = pool_next(pool, &pfn, end)) != NULL) {
		struct page *page = &pool->page[folio->page.index];

		if (page->folio == folio) {
			page->folio = NULL;
			mf_folio_put(pool->map, folio); /* the pool's */
			nr++;
		}
		mf_folio_put(pool->map, folio); /* pool_next's: page_release() runs here */
	}
	return nr;
}

/* Moves the hand until it has emptied one aligned range of this order.  After two rounds only pinned pages are left. */
static int pool_make_room(struct pool *pool, unsigned order)
{
	mf_pfn_t size = (mf_pfn_t)1 << order, walked = 0;

	while (walked <= 2 * pool->nr_frames) {
		mf_pfn_t start = mf_round_down(pool->hand, size), next;
		bool cold = range_is_cold(pool, start, start + size, &next);

		walked += next - pool->hand;
		pool->hand = next < pool->nr_frames ? next : 0;
		if (cold && range_evict(pool, start, start + size) > 0)
			return 0;
	}
	return -MF_ENOMEM;
}

static int page_load(struct pool *pool, struct page *page)
{
	struct mf_folio *folio;
	ssize_t n;
	int err;

	while ((err = mf_folio_alloc(pool->map, MF_ANY_NODE, page->order, MF_ALLOC_WAIT, &folio)) == -MF_ENOMEM) {
		err = pool_make_room(pool, page->order);
		if (err)
			break;
	}
	if (err)
		return err;
	n = pread(pool->file, mf_folio_data(pool->map, folio), page_bytes(page), (off_t)page->offset);
	require(n == (ssize_t)page_bytes(page), "a page can be read");
	folio->page.index = (uint64_t)(page - pool->page);
	mf_folio_set_owner(folio, &pool->owner);
	page->folio = folio; /* the reference that alloc gave is the pool's */
	return 0;
}

/* The page, resident and pinned: its memory stays where it is until pool_unpin(). */
static int pool_pin(struct pool *pool, unsigned number, struct mf_folio **folio)
{
	struct page *page = &pool->page[number];
	int err = 0;

	if (page->folio) {
		pool->hits++;
	} else {
		pool->misses++;
		err = page_load(pool, page);
	}
	if (!err)
		err = mf_folio_pin(page->folio);
	if (err)
		return err;
	mf_folio_set_flags(page->folio, PAGE_USED);
	*folio = page->folio;
	return 0;
}

static void pool_unpin(struct pool *pool, struct mf_folio *folio)
{
	require(pool->page[folio->page.index].folio == folio, "a pinned page stays in the pool");
	mf_folio_unpin(pool->map, folio);
}

static uint64_t pool_map_bytes(struct pool *pool)
{
	struct mf_map_stats s;

	mf_map_stats(pool->map, &s);
	return (s.nr_slots + s.nr_tables + s.nr_zero) << PAGE_SHIFT;
}

static void pool_check(struct pool *pool)
{
	struct mf_violation violation;
	int err = mf_map_check(pool->map, &violation);

	if (err == 1)
		fprintf(stderr, "buffer_pool: %s, pfn %llu: %s\n", violation.law, (unsigned long long)violation.pfn,
			violation.text);
	require(err == 0, "every law holds");
}

/* Memory behind frames 0 .. nr_frames, and a map that describes it. */
static void pool_open(struct pool *pool)
{
	struct mf_linux_config linux_config = {.page_shift = PAGE_SHIFT};
	struct mf_linux_memory memory = {.kind = MF_LINUX_MEMFD, .size_bytes = POOL_BYTES};
	struct mf_region_config region = {.end_pfn = POOL_BYTES >> PAGE_SHIFT, .source = MF_SOURCE_HOST};
	struct mf_map_config config = {.span = POOL_BYTES >> PAGE_SHIFT};
	char why[200] = "";

	pool->owner = (struct mf_owner){.name = "buffer pool", .release = page_release};
	pool->nr_frames = POOL_BYTES >> PAGE_SHIFT;
	fail_if(mf_linux_create(&linux_config, &pool->machine), "the machine");
	fail_if(mf_linux_memory_add(pool->machine, &memory, why, sizeof(why)), why);
	config.machine = pool->machine;
	fail_if(mf_map_create(&config, &pool->map), "the map");
	fail_if(mf_region_add(pool->map, &region, &pool->region), "the region");
}

static void pool_close(struct pool *pool)
{
	fail_if(mf_region_remove(pool->map, pool->region), "removing the region");
	fail_if(mf_map_destroy(pool->map), "destroying the map");
	mf_linux_destroy(pool->machine);
	close(pool->file);
}

/* ---- The database, and what is done with it ------------------------------------------------------------------ */

/* A page that was changed n times is full of words that follow from its number and n; one never changed, of zeros. */
static uint64_t content_word(unsigned number, uint32_t version, size_t i)
{
	return version == 0 ? 0 : ((uint64_t)number << 40) + ((uint64_t)version << 20) + i;
}

static void content_write(uint64_t *word, size_t bytes, unsigned number, uint32_t version)
{
	for (size_t i = 0; i < bytes / sizeof(*word); i++)
		word[i] = content_word(number, version, i);
}

static bool content_is(const uint64_t *word, size_t bytes, unsigned number, uint32_t version)
{
	for (size_t i = 0; i < bytes / sizeof(*word); i++)
		if (word[i] != content_word(number, version, i))
			return false;
	return true;
}

static void database_create(struct pool *pool)
{
	uint64_t offset = 0;

	for (unsigned i = 0; i < NR_PAGES; i++) {
		pool->page[i].order = i < NR_4K ? 0 : i < NR_4K + NR_64K ? 4 : 9;
		pool->page[i].offset = offset;
		offset += page_bytes(&pool->page[i]);
	}
	pool->file = memfd_create("database", MFD_CLOEXEC);
	require(pool->file >= 0 && ftruncate(pool->file, (off_t)offset) == 0, "the database can be created");
	printf("database     %llu MiB: %u pages of 4 KiB, %u of 64 KiB, %u of 2 MiB\n",
	       (unsigned long long)(offset / MF_MIB), NR_4K, NR_64K, NR_2M);
	printf("pool         %llu MiB\n", (unsigned long long)(POOL_BYTES / MF_MIB));
}

/* Three quarters of all accesses go to small pages, one in a hundred to 2 MiB; low numbers are the popular ones. */
static unsigned choose_page(void)
{
	unsigned kind = (unsigned)rand() % 100;
	unsigned nr = kind < 75 ? NR_4K : kind < 99 ? NR_64K : NR_2M;
	unsigned first = kind < 75 ? 0 : kind < 99 ? NR_4K : NR_4K + NR_64K;
	unsigned a = (unsigned)rand() % nr, b = (unsigned)rand() % nr;

	return first + (a < b ? a : b);
}

struct held {
	unsigned number;
	struct mf_folio *folio;
};

/* Pins pages, reads or changes them, and keeps the last few pinned while others come and go. */
static void work(struct pool *pool, uint32_t *version)
{
	struct held held[NR_HELD] = {0};

	for (unsigned n = 0; n < NR_ACCESSES + NR_HELD; n++) {
		struct held *h = &held[n % NR_HELD];
		uint64_t *word;

		if (h->folio) {
			word = mf_folio_data(pool->map, h->folio);
			require(content_is(word, page_bytes(&pool->page[h->number]), h->number, version[h->number]),
				"a pinned page keeps its content");
			pool_unpin(pool, h->folio);
			h->folio = NULL;
		}
		if (n >= NR_ACCESSES)
			continue;
		h->number = choose_page();
		fail_if(pool_pin(pool, h->number, &h->folio), "pinning a page");
		word = mf_folio_data(pool->map, h->folio);
		require(content_is(word, page_bytes(&pool->page[h->number]), h->number, version[h->number]),
			"a page that comes back is as it was left");
		if (n % 4 != 0)
			continue;
		content_write(word, page_bytes(&pool->page[h->number]), h->number, ++version[h->number]);
		mf_folio_set_flags(h->folio, PAGE_DIRTY);
	}
}

/* Empties the pool while one changed page is still pinned: that page leaves with its last pin. */
static void empty(struct pool *pool, uint32_t *version)
{
	struct mf_folio *folio;
	uint64_t evicted;
	const unsigned number = NR_PAGES - 1;

	fail_if(pool_pin(pool, number, &folio), "pinning the last page");
	content_write(mf_folio_data(pool->map, folio), page_bytes(&pool->page[number]), number, ++version[number]);
	mf_folio_set_flags(folio, PAGE_DIRTY);
	range_evict(pool, 0, pool->nr_frames);
	evicted = pool->evictions;
	require(mf_folio_refcount(folio) == 1 && mf_folio_pincount(folio) == 1, "only its pin holds the last page");
	mf_folio_unpin(pool->map, folio);
	require(pool->evictions == evicted + 1, "the last pin released the last page");
}

static bool database_is(const struct pool *pool, const uint32_t *version)
{
	uint64_t *buffer = malloc(2 * MF_MIB);
	bool good = buffer != NULL;

	for (unsigned i = 0; i < NR_PAGES && good; i++) {
		size_t bytes = page_bytes(&pool->page[i]);

		good = pread(pool->file, buffer, bytes, (off_t)pool->page[i].offset) == (ssize_t)bytes &&
		       content_is(buffer, bytes, i, version[i]);
	}
	free(buffer);
	return good;
}

int main(void)
{
	static struct pool pool;
	static uint32_t version[NR_PAGES];
	uint64_t at_first, at_work;

	srand(1);
	database_create(&pool);
	pool_open(&pool);
	at_first = pool_map_bytes(&pool);
	work(&pool, version);
	pool_check(&pool);
	at_work = pool_map_bytes(&pool);
	empty(&pool, version);
	require(database_is(&pool, version), "every change reached the database");
	fail_if(mf_fold(pool.map, MF_ANY_NODE, MF_FOLD_ALL, NULL), "folding");
	require(pool_map_bytes(&pool) == at_first, "an empty pool costs what it cost at first");
	pool_check(&pool);
	printf("accesses     %llu: %llu hits, %llu misses, %llu evictions, %llu pages written back\n",
	       (unsigned long long)(pool.hits + pool.misses), (unsigned long long)pool.hits,
	       (unsigned long long)pool.misses, (unsigned long long)pool.evictions, (unsigned long long)pool.writes);
	printf("map          %llu KiB empty, %llu KiB at work; one descriptor per 4 KiB would be %llu KiB\n",
	       (unsigned long long)(at_first / MF_KIB), (unsigned long long)(at_work / MF_KIB),
	       (unsigned long long)(pool.nr_frames * MF_DESCRIPTOR_SIZE / MF_KIB));
	printf("laws         held\n");
	pool_close(&pool);
	return 0;
}
