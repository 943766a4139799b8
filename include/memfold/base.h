/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * base.h - what every room of memfold stands on: fixed-width units, error codes, overflow-checked sums,
 * bits, circular lists, a spin lock, assertions.
 *
 * Owns no state.  Needs only freestanding C11 headers.  Knows nothing of memory maps.
 */
#ifndef MEMFOLD_BASE_H
#define MEMFOLD_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MF_VERSION "0.1.0"

#if defined(__GNUC__)
#define MF_API __attribute__((visibility("default")))
#define MF_MUST_CHECK __attribute__((warn_unused_result))
#define MF_NORETURN __attribute__((noreturn))
#define MF_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define MF_LIKELY(x) __builtin_expect(!!(x), 1)
#define MF_UNLIKELY(x) __builtin_expect(!!(x), 0)
#else
#error "memfold needs gcc or clang"
#endif

#ifdef __cplusplus
#define MF_BUILD_ASSERT(cond, why) static_assert(cond, why)
#else
#define MF_BUILD_ASSERT(cond, why) _Static_assert(cond, why)
#endif

/* ---- Units ------------------------------------------------------------------------------------------ */

typedef uint64_t mf_pfn_t;   /* number of a frame; a frame is one base page of P bytes              */
typedef uint64_t mf_paddr_t; /* physical byte address = pfn * P                                     */

#define MF_KIB ((uint64_t)1 << 10)
#define MF_MIB ((uint64_t)1 << 20)
#define MF_GIB ((uint64_t)1 << 30)
#define MF_TIB ((uint64_t)1 << 40)

/* ---- Errors ----------------------------------------------------------------------------------------- */

/*
 * Every call that can fail returns 0 or one of these, negated.  The values are Linux's errno values, so that a
 * hosted caller may hand them on; a freestanding one needs no errno.h.
 */
enum mf_error {
	MF_EPERM = 1,       /* not in this process: the map belongs to the process that created it        */
	MF_ENOENT = 2,      /* no such region, folio or file                                              */
	MF_EIO = 5,         /* the host failed to read or write the backing                               */
	MF_E2BIG = 7,       /* more than the map, the machine or a table was made for                     */
	MF_EAGAIN = 11,     /* overtaken by another operation: try again                                  */
	MF_ENOMEM = 12,     /* no frame, no descriptor memory, or too few mappings                        */
	MF_EACCES = 13,     /* the backing does not allow it                                              */
	MF_EFAULT = 14,     /* an address outside what it should lie in                                   */
	MF_EBUSY = 16,      /* in use                                                                     */
	MF_EEXIST = 17,     /* already there, or overlapping something that is                            */
	MF_ENODEV = 19,     /* no such machine, node or device                                            */
	MF_EINVAL = 22,     /* an argument that can never be right                                        */
	MF_ENOSPC = 28,     /* a fixed reserve is full                                                    */
	MF_ERANGE = 34,     /* a number outside the range it must be in                                   */
	MF_EOVERFLOW = 75,  /* a sum or a count beyond its type                                           */
	MF_EOPNOTSUPP = 95, /* not possible on this machine or with this layout                           */
};

/* One short sentence for an error code (sign ignored); never NULL.  Does not allocate. */
MF_API const char *mf_strerror(int error);

/* ---- Checked arithmetic on numbers from outside; true when it fits ------------------------------------- */

static inline bool mf_add_fits(uint64_t a, uint64_t b, uint64_t *sum)
{
	return !__builtin_add_overflow(a, b, sum);
}

static inline bool mf_mul_fits(uint64_t a, uint64_t b, uint64_t *product)
{
	return !__builtin_mul_overflow(a, b, product);
}

/* ---- Bits ------------------------------------------------------------------------------------------- */

static inline bool mf_is_power_of_two(uint64_t n)
{
	return n != 0 && (n & (n - 1)) == 0;
}

/* floor(log2(n)); n > 0. */
static inline unsigned mf_log2(uint64_t n)
{
	return 63u - (unsigned)__builtin_clzll(n);
}

/* Number of trailing zero bits; n > 0. */
static inline unsigned mf_ctz(uint64_t n)
{
	return (unsigned)__builtin_ctzll(n);
}

/* Round to a multiple of `unit`, a power of two.  The caller knows that rounding up does not overflow. */
static inline uint64_t mf_round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) & ~(unit - 1);
}

static inline uint64_t mf_round_down(uint64_t n, uint64_t unit)
{
	return n & ~(unit - 1);
}

static inline uint64_t mf_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t mf_max(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* ---- Lists: circular, intrusive, doubly linked ---------------------------------------------------------- */

struct mf_list {
	struct mf_list *next, *prev;
};

#define mf_container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void mf_list_init(struct mf_list *head)
{
	head->next = head;
	head->prev = head;
}

static inline bool mf_list_is_empty(const struct mf_list *head)
{
	return head->next == head;
}

static inline void mf_list_insert_between(struct mf_list *node, struct mf_list *prev, struct mf_list *next)
{
	node->prev = prev;
	node->next = next;
	prev->next = node;
	next->prev = node;
}

static inline void mf_list_push_front(struct mf_list *head, struct mf_list *node)
{
	mf_list_insert_between(node, head, head->next);
}

static inline void mf_list_push_back(struct mf_list *head, struct mf_list *node)
{
	mf_list_insert_between(node, head->prev, head);
}

/* Unlinks and zeroes the links: a record that is on no list is zero there, as fresh memory is. */
static inline void mf_list_remove(struct mf_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	node->next = NULL;
	node->prev = NULL;
}

/* ---- A spin lock -------------------------------------------------------------------------------------- */

/*
 * A test-and-test-and-set lock for short sections.  A waiter calls the relax function it is given (a pause, a
 * yield), so that the lock itself knows no machine.  Not recursive; not fair.  Ranks: docs/LOCKING.md.
 */
struct mf_lock {
	unsigned held; /* atomic */
};

static inline void mf_lock_init(struct mf_lock *lock)
{
	lock->held = 0;
}

static inline bool mf_lock_try(struct mf_lock *lock)
{
	return __atomic_load_n(&lock->held, __ATOMIC_RELAXED) == 0 &&
	       __atomic_exchange_n(&lock->held, 1, __ATOMIC_ACQUIRE) == 0;
}

static inline void mf_lock_release(struct mf_lock *lock)
{
	__atomic_store_n(&lock->held, 0, __ATOMIC_RELEASE);
}

/* ---- Assertions ---------------------------------------------------------------------------------------- */

/*
 * Three strengths:
 *   MF_PANIC / MF_PANIC_IF   stays in every build: going on would corrupt memory, or the caller broke a contract.
 *   MF_ASSERT                cheap, in debug builds (MF_DEBUG): our own mistake.
 *   MF_ASSERT_DEEP           walks structures, in debug builds with MF_DEBUG_DEEP.
 * All end in the panic hook with one full sentence; nothing is allocated on the way.
 */
typedef void (*mf_panic_fn)(void *ctx, const char *sentence);

/*
 * Sets the function that a broken contract ends in, for the whole program; NULL restores the core's default, which only
 * stops the processor (machines set their own where they are created; the hosted ones print the sentence and abort).
 * The hook may leave by longjmp (tests do); the sentence stays readable until the next panic.  If the hook returns, the
 * processor is stopped by __builtin_trap().  Set it before a second thread uses memfold (the log hook too).  After a
 * panic the map may hold locks and must not be used again, only destroyed with the process.
 */
MF_API void mf_panic_hook_set(mf_panic_fn fn, void *ctx);

/* For machines: what NULL stands for.  The hosted ones set a function that prints the sentence and aborts. */
MF_API void mf_panic_default_set(mf_panic_fn fn);

MF_API MF_NORETURN void mf_panic(const char *format, ...) MF_PRINTF(1, 2);

#define MF_PANIC_IF(cond, ...)             \
	do {                               \
		if (MF_UNLIKELY(cond))     \
			mf_panic(__VA_ARGS__); \
	} while (0)

#ifdef MF_DEBUG
#define MF_ASSERT(cond) \
	MF_PANIC_IF(!(cond), "memfold: internal error: \"%s\" does not hold at %s:%d.", #cond, __FILE__, __LINE__)
#else
#define MF_ASSERT(cond) ((void)sizeof(!(cond)))
#endif

/*
 * A formatter for messages in places without a C library: %s %c %d %u %x %lu %llu %lx %llx %zu %p %%, field width
 * and zero padding; writes at most size bytes including the terminating zero, returns the length it would need.
 */
MF_API size_t mf_format(char *buffer, size_t size, const char *format, ...) MF_PRINTF(3, 4);
MF_API size_t mf_vformat(char *buffer, size_t size, const char *format, va_list args) MF_PRINTF(3, 0);

/* ---- Log ----------------------------------------------------------------------------------------------- */

enum mf_log_level { MF_LOG_ERROR, MF_LOG_WARNING, MF_LOG_INFO, MF_LOG_DEBUG };

typedef void (*mf_log_fn)(void *ctx, enum mf_log_level level, const char *line);

/*
 * Sets where log lines go, for the whole program; NULL drops them (the default).  The hook is called inside calls
 * that hold locks of a map: it may not call memfold.
 */
MF_API void mf_log_hook_set(mf_log_fn fn, void *ctx);
MF_API void mf_log(enum mf_log_level level, const char *format, ...) MF_PRINTF(2, 3);

#ifdef __cplusplus
}
#endif
#endif
