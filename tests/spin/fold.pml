/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fold.pml - the fold protocol of one block, for the model checker Spin: every interleaving of a structure changer,
 * a user and two lock-free readers, with stale translations.
 *
 * Owns: nothing outside itself.  Keeps: M1, M2, M5, M6, M8 and lock-freedom of readers, by assertions named after the
 * law.  Does not: model weak memory order (Spin interleaves whole steps; see README.md), page tables above the leaves,
 * or more than one block.  How mf_quiesce() is built is quiesce.pml's matter; here it does what it promises.
 *
 *        W_1   P                   always backed
 *        W_0   [ C0 | C1 ]         one map slot: entry -> the zero frame, read-only, or map frame A
 *
 * C0 and C1 stand for the 512 children; both in one folio (C0 head, C1 tail) stands for any folio of several children.
 * Each process may also end at its loop's head, so that one that others would leave waiting for good shows up as an
 * invalid end state.  Steps are labelled with the C functions they stand for; every -D is a row of README.md's table.
 */

#define P	0	/* records, as indices of count[]: the parent, and child i is i + 1 */
#define C0	1
#define C1	2
#define NOBODY	3

#define ZERO	0	/* first words of a child's record, as far as readers tell them apart */
#define RECORD	1
#define TAIL	2
#define GARBAGE	3	/* what the frame's last owner left there */

#define CHANGER	0	/* CPUs: one per process */
#define USER	1
#define BELOW	2
#define ABOVE	3
#define NR_CPUS	4
#define cpu_is_reader(cpu)	(cpu >= BELOW)

/* The second operand is always false; it is there to be printed with the assertion. */
#define law(cond, name)	assert((cond) || name)
hidden byte M1_two_answers, M1_reference_in_transition, M1_wrong_owner, M1_bad_count, M1_unwritten_record;
hidden byte M2_reader_waits, M5_stale_access, M6_write_to_zero_frame, M8_recount, CHANGING_twice;

/* -DWITNESS=witness_child stops at the first such moment: proof that the runs which hold are not empty. */
#define witness_child		1
#define witness_parent		2
#define witness_overtaken	3
#define witness_moved		4
#define witness_busy		5
#define witness_split		6
#define witness_merged		7
#ifdef WITNESS
#define witness(what)	assert(WITNESS != what || what##_reached)
#else
#define witness(what)	skip
#endif
hidden byte witness_child_reached, witness_parent_reached, witness_overtaken_reached, witness_moved_reached;
hidden byte witness_busy_reached, witness_split_reached, witness_merged_reached;

bit split;		/* P's word says split, not whole */
bit changing;		/* P's flag CHANGING */
byte count[3];		/* reference counts; those of children lie in frame A */
byte word[2] = GARBAGE;	/* first words of C0 and C1, in frame A */
bit listed[3];		/* on a free list of the zone */

bit entry_a;		/* the slot's entry: 0 the zero frame, 1 frame A */
bit a_is_map;		/* frame A is ours; otherwise another owner writes to it */
bit stale[NR_CPUS];	/* the CPU may hold the entry's previous translation */

bit inside[NR_CPUS];	/* in a reader section */
bit awaited[NR_CPUS];	/* mf_quiesce() waits for that section's end */

byte owner[2] = NOBODY;	/* ghost: the record that owns each child's memory */
byte done;		/* ghost: processes that ended */
bit overtaken[NR_CPUS];	/* ghost: P's word was published since the reader set out */

hidden byte via_a;


/* ---- Hardware ------------------------------------------------------------------------------------------------- */

/*
 * A translation: the entry's, or the one before it as long as nothing flushed or evicted it.  Fills and evictions need
 * no steps of their own: only what an access meets can be told apart, and it is chosen here.
 */
inline translate(cpu)
{
	if
	:: via_a = entry_a; stale[cpu] = 0
	:: stale[cpu] -> via_a = !entry_a
	fi
}

inline reads_child(cpu)
{
	translate(cpu);
	law(!via_a || a_is_map, M5_stale_access)
}

/* Also a compare-and-swap that fails: it needs a writable translation all the same. */
inline writes_child(cpu)
{
	translate(cpu);
	law(via_a, M6_write_to_zero_frame);
	law(a_is_map, M5_stale_access)
}

inline writes_record(cpu, rec)
{
	if
	:: rec != P -> writes_child(cpu)
	:: else
	fi
}

inline entry_switch(to)
{
	entry_a = to;
#ifndef HOST
	stale[CHANGER] = 1; stale[USER] = 1; stale[BELOW] = 1; stale[ABOVE] = 1;
#endif
}

/* ---- Steps, each labelled with the C function it stands for ---------------------------------------------------- */

#define STEP(name)	name: do_##name()

/* ---- Unfold --------------------------------------------------------------------------------------------------- */

inline published()
{
	overtaken[BELOW] = 1; overtaken[ABOVE] = 1
}

inline do_frames_get()
{
#ifdef ZEROED_FRAMES
	d_step { a_is_map = 1; word[0] = ZERO; word[1] = ZERO }
#else
	a_is_map = 1
#endif
}

/* Through the direct map, before the slot shows it.  HOST: in the window itself, a word at a time. */
inline do_children_write()
{
#ifdef HOST
	word[1] = RECORD;
	word[0] = RECORD
#else
	d_step { word[0] = RECORD; word[1] = RECORD; count[C0] = 0; count[C1] = 0 }
#endif
}

/* HOST: populated memory reads as zero and is writable. */
inline do_window_link()
{
	d_step {
#ifdef HOST
		a_is_map = 1; word[0] = ZERO; word[1] = ZERO;
#endif
		entry_switch(1)
	}
}

/* All CPUs at once loses nothing: one that flushes earlier is one that chose the new translation. */
inline do_window_flush_children()
{
	d_step { stale[CHANGER] = 0; stale[USER] = 0; stale[BELOW] = 0; stale[ABOVE] = 0 }
}

inline do_unfold_publish()
{
	d_step { split = 1; count[P] = 0; published() }
}

/* From a block that nobody can take to published children that nobody can take. */
#define WRITE	STEP(frames_get); STEP(children_write)
#define LINK	STEP(window_link)
#define FLUSH	STEP(window_flush_children)
#define PUBLISH	STEP(unfold_publish)
#if defined(HOST)
#define unfold()	LINK; STEP(children_write); PUBLISH
#elif defined(NO_FLUSH_UNFOLD)
#define unfold()	WRITE; LINK; PUBLISH
#elif defined(PUBLISH_BEFORE_CHILDREN)
#define unfold()	STEP(frames_get); LINK; FLUSH; PUBLISH; STEP(children_write)
#elif defined(LINK_BEFORE_CHILDREN)
#define unfold()	STEP(frames_get); LINK; STEP(children_write); FLUSH; PUBLISH
#elif defined(PUBLISH_BEFORE_LINK)
#define unfold()	WRITE; PUBLISH; LINK; FLUSH
#elif defined(PUBLISH_BEFORE_FLUSH)
#define unfold()	WRITE; LINK; PUBLISH; FLUSH
#else
#define unfold()	WRITE; LINK; FLUSH; PUBLISH
#endif

/* Then they are handed out: on the free lists, or unfrozen. */
#ifdef INSERT_BEFORE_PUBLISH
#define unfold_free()	WRITE; LINK; FLUSH; insert_children: do_insert_children(CHANGER); PUBLISH
#else
#define unfold_free()	unfold(); insert_children: do_insert_children(CHANGER)
#endif
#ifdef UNFREEZE_BEFORE_PUBLISH
#define unfold_used()	WRITE; LINK; FLUSH; unfreeze_children(); PUBLISH
#else
#define unfold_used()	unfold(); unfreeze_children()
#endif

/* ---- Fold ----------------------------------------------------------------------------------------------------- */

inline do_fold_publish_whole()
{
	d_step { split = 0; count[P] = 0; published() }
}

inline do_mf_quiesce()
{
	d_step { awaited[BELOW] = inside[BELOW]; awaited[ABOVE] = inside[ABOVE] }
	!awaited[BELOW] && !awaited[ABOVE]
}

inline do_pool_put()
{
	d_step {
		law(count[C0] == 0 && count[C1] == 0, M1_reference_in_transition);
		a_is_map = 0; word[0] = GARBAGE; word[1] = GARBAGE; count[C0] = 0; count[C1] = 0
	}
}

/* HOST: the host takes the memory back and forgets its translations in one call. */
inline do_window_unlink()
{
	d_step {
		entry_switch(0);
#ifdef HOST
		law(count[C0] == 0 && count[C1] == 0, M1_reference_in_transition);
		a_is_map = 0; word[0] = GARBAGE; word[1] = GARBAGE
#endif
	}
}

#define WHOLE	STEP(fold_publish_whole)
#define QUIESCE	STEP(mf_quiesce)
#define UNLINK	STEP(window_unlink)
#define FLUSH_UNLINKED	flush_unlinked: do_window_flush_children()
#define RELEASE	STEP(pool_put)
#if defined(HOST) && defined(NO_QUIESCE)
#define fold()	WHOLE; UNLINK
#elif defined(HOST)
#define fold()	WHOLE; QUIESCE; UNLINK
#elif defined(NO_QUIESCE)
#define fold()	WHOLE; UNLINK; FLUSH_UNLINKED; RELEASE
#elif defined(QUIESCE_AFTER_UNLINK)
#define fold()	WHOLE; UNLINK; QUIESCE; FLUSH_UNLINKED; RELEASE
#elif defined(QUIESCE_BEFORE_WHOLE)
#define fold()	QUIESCE; WHOLE; UNLINK; FLUSH_UNLINKED; RELEASE
#elif defined(NO_FLUSH_FOLD)
#define fold()	WHOLE; QUIESCE; UNLINK; RELEASE
#elif defined(RELEASE_BEFORE_FLUSH)
#define fold()	WHOLE; QUIESCE; UNLINK; RELEASE; FLUSH_UNLINKED
#elif defined(WHOLE_AFTER_UNLINK)
#define fold()	QUIESCE; UNLINK; FLUSH_UNLINKED; WHOLE; RELEASE
#else
#define fold()	WHOLE; QUIESCE; UNLINK; FLUSH_UNLINKED; RELEASE
#endif

/* ---- The zone: each atomic step is one section under the zone's lock -------------------------------------------- */

inline begin_change()
{
	law(!changing, CHANGING_twice);
	changing = 1
}

inline do_zone_begin_unfold()
{
#ifdef NO_BEGIN_UNFOLD
	listed[P]
#else
	listed[P] -> listed[P] = 0; begin_change()
#endif
}

inline do_zone_remove_children(cpu)
{
#ifdef NO_BEGIN_FOLD
	listed[C0] && listed[C1]
#else
	listed[C0] && listed[C1] -> writes_child(cpu); listed[C0] = 0; listed[C1] = 0; begin_change()
#endif
}

/* Both insertions take off the lists too what a variant has left there until now. */
inline do_insert_children(cpu)
{
	atomic { writes_child(cpu); listed[P] = 0; listed[C0] = 1; listed[C1] = 1; changing = 0 }
}

inline do_zone_insert()
{
	d_step { listed[C0] = 0; listed[C1] = 0; listed[P] = 1; changing = 0 }
}

/* ---- References -------------------------------------------------------------------------------------------------- */

inline owner_set(r, to)
{
	if
	:: r == P -> owner[0] = to; owner[1] = to
	:: r == C0 -> owner[0] = to; if :: word[1] == TAIL -> owner[1] = to :: else fi
	:: r == C1 -> owner[1] = to
	fi
}

/* Whoever holds rec asks for child i: from above and from below it must be rec (M1). */
inline holds(cpu, i, rec)
{
	atomic {
		law(owner[i] == rec, M1_wrong_owner);
		law(split == (rec != P), M1_two_answers);
		reads_child(cpu);
		law(via_a == (rec != P), M1_two_answers);
		law(rec == P || word[i] == (rec == i + 1 -> RECORD : TAIL), M1_two_answers);
		law(count[P] == 0 || (count[C0] == 0 && count[C1] == 0), M1_two_answers)
	}
}

/* mf_folio_put: a full put; whoever drops the last reference frees, readers too. */
inline do_mf_folio_put(cpu, rec)
{
	atomic {
		writes_record(cpu, rec);
		law(count[rec] > 0, M1_bad_count);
		count[rec]--;
		if
		:: count[rec] == 0 -> owner_set(rec, NOBODY)
		:: else -> goto put_done
		fi
	}
#ifdef NO_FULL_PUT
	if
	:: cpu_is_reader(cpu) -> goto put_done
	:: else
	fi;
#endif
zone_free:
	atomic {
		writes_record(cpu, rec);
		if
		:: rec == C0 && word[1] == TAIL -> word[1] = RECORD; listed[C1] = 1
		:: else
		fi;
		law(!listed[rec], M1_bad_count);
		listed[rec] = 1
	}
put_done:
	skip
}

inline do_mf_folio_unfreeze(cpu, rec)
{
	atomic {
		writes_record(cpu, rec);
		law(count[rec] == 0, M1_bad_count);
		count[rec] = 1;
		owner_set(rec, rec)
	}
}

/* ---- The structure changer: folds and unfolds what is free ---------------------------------------------------- */

active proctype changer()
{
	do
	:: break
	:: atomic { do_zone_begin_unfold() };
		unfold_free()
	:: atomic { do_zone_remove_children(CHANGER) };
		fold();
		STEP(zone_insert)
	od;
	done++
}

/* ---- The user: allocates, frees, splits and merges what it holds alone ------------------------------------------ */

inline unfreeze_children()
{
	do_mf_folio_unfreeze(USER, C0);
	atomic { writes_child(USER); count[C1] = 1; owner[1] = C1; changing = 0; mine[P] = 0; mine[C0] = 1; mine[C1] = 1 }
}

active proctype user()
{
	bit mine[3];
	byte rec;

	do
	:: break
	/* mf_folio_alloc: off the list under the lock, then count 0 -> 1. */
	:: atomic { listed[P] -> listed[P] = 0; rec = P };
		goto allocated
	:: atomic { listed[C0] -> writes_child(USER); listed[C0] = 0; rec = C0 };
		goto allocated
#ifndef ONE_DESCRIPTOR_FOLIOS
	:: atomic { listed[C0] && listed[C1] -> writes_child(USER); listed[C0] = 0; listed[C1] = 0; word[1] = TAIL; rec = C0 };
		goto allocated
#endif
	:: atomic { listed[C1] -> writes_child(USER); listed[C1] = 0; rec = C1 };
allocated:
		do_mf_folio_unfreeze(USER, rec);
		holds(USER, (rec == C1 -> 1 : 0), rec);
		atomic { mine[rec] = 1; rec = 0 }
	:: atomic { mine[P] -> rec = P; mine[P] = 0 };
		goto put
	:: atomic { mine[C1] -> rec = C1; mine[C1] = 0 };
		goto put
	:: atomic { mine[C0] -> rec = C0; mine[C0] = 0 };
put:
		do_mf_folio_put(USER, rec);
		rec = 0
	/* mf_folio_split: freeze, unfold a block in use, unfreeze its children. */
	:: mine[P] ->
mf_folio_split:
		atomic {
			if
			:: count[P] != 1 -> witness(witness_busy); goto busy
			:: else
			fi;
#ifndef NO_FREEZE_SPLIT
			count[P] = 0;
#endif
			owner_set(P, NOBODY);
			begin_change()
		};
		unfold_used();
		witness(witness_split)
	/* mf_folio_merge: freeze the children, fold, unfreeze the parent. */
	:: mine[C0] && mine[C1] ->
mf_folio_merge:
		atomic {
			writes_child(USER);
			if
			:: count[C0] != 1 -> goto busy
			:: else
			fi;
#ifndef NO_FREEZE_MERGE
			count[C0] = 0;
#endif
			owner[0] = NOBODY
		};
		atomic {
			writes_child(USER);
			if
			:: count[C1] != 1 -> goto merge_back
			:: else
			fi;
#ifndef NO_FREEZE_MERGE
			count[C1] = 0;
#endif
			owner[1] = NOBODY;
			begin_change()
		};
		fold();
		atomic { changing = 0; mine[C0] = 0; mine[C1] = 0; mine[P] = 1; count[P] = 1; owner_set(P, P) };
		witness(witness_merged);
		goto busy;
merge_back:
		atomic { writes_child(USER); count[C0] = 1; owner[0] = C0 }
busy:
		skip
	od;
	done++
}

/* ---- Readers: mf_folio_try_get() from a descriptor, mf_pfn_try_get() from a pfn ---------------------------------- */

inline answer(i, found)
{
	law(word[i] != GARBAGE, M1_unwritten_record);
	found = (word[i] == TAIL -> C0 : i + 1)
}

/* mf_pfn_folio() or mf_page_folio(); every load is a step. */
inline do_resolve(i, found)
{
	atomic { overtaken[cpu] = 0; if :: cpu == ABOVE -> goto from_above :: else fi };
mf_page_folio:
	atomic {
		reads_child(cpu);
		if
		:: via_a && word[i] != ZERO -> answer(i, found); goto resolved
		:: else
		fi
	};
	atomic {
		if
		:: !split -> found = P; goto resolved
		:: else
		fi
	};
from_above:
mf_pfn_folio:
	atomic {
		if
		:: !split -> found = P; goto resolved
		:: else
		fi
	};
	atomic {
		reads_child(cpu);
		if
		:: via_a && word[i] != ZERO -> answer(i, found); goto resolved
		:: else ->
#ifndef READERS_MAY_WAIT
			law(overtaken[cpu], M2_reader_waits);
#endif
			witness(witness_overtaken);
			overtaken[cpu] = 0;
			goto from_above
		fi
	}
}

proctype reader(byte cpu)
{
	bit i;
	bit again;
	byte rec;
	byte found;
	byte n;

	do
	:: break
	/* mf_reader_enter; or a bare lookup, which needs no section since it only reads. */
#ifdef NO_BARE_LOOKUPS
	:: atomic { if :: i = 0 :: i = 1 fi; inside[cpu] = 1 };
#else
	:: atomic { if :: i = 0 :: i = 1 fi; if :: inside[cpu] = 1 :: skip fi };
#endif
resolve:
		do_resolve(i, found);
resolved:
		if
		:: !inside[cpu] -> goto leave
		:: inside[cpu] && again && found == rec -> goto held
		:: inside[cpu] && again && found != rec -> witness(witness_moved); goto drop
		:: inside[cpu] && !again -> rec = found
		fi;
load_count:
		atomic {
			if
			:: rec == P -> n = count[P]
			:: else -> reads_child(cpu); n = (via_a -> count[rec] : 0)
			fi;
			if
			:: n == 0 -> goto leave
			:: else
			fi
		};
mf_folio_try_get:
		atomic {
			writes_record(cpu, rec);
			if
			:: count[rec] == n -> count[rec]++; n = 0
			:: else -> n = 0; goto load_count
			fi
		};
#ifdef NO_RERESOLVE
		goto held;
#endif
		again = 1;
		goto resolve;
held:
		atomic { found = 0; inside[cpu] = 0; awaited[cpu] = 0 };	/* mf_reader_exit */
		if
		:: rec == P -> witness(witness_parent)
		:: else -> witness(witness_child)
		fi;
		holds(cpu, i, rec);
drop:
		do_mf_folio_put(cpu, rec);
		if
		:: inside[cpu] -> again = 0; goto resolve
		:: else
		fi;
leave:
		atomic {
			i = 0; again = 0; rec = 0; found = 0; n = 0; overtaken[cpu] = 0;
			inside[cpu] = 0; awaited[cpu] = 0	/* mf_reader_exit */
		}
	od;
	done++
}

/* When all have ended: what nobody owns is on a list, what somebody owns has one holder, nothing is in between. */
inline settled(i, child)
{
	law(split == entry_a && split == a_is_map && !changing, M8_recount);
	law(owner[i] != NOBODY || listed[(split -> child : P)], M8_recount);
	law(owner[i] == NOBODY || (!listed[owner[i]] && count[owner[i]] == 1), M8_recount)
}

init
{
	atomic {
		listed[P] = 1;
		run reader(BELOW);
		run reader(ABOVE)
	}
	done == NR_CPUS;
	d_step { settled(0, C0); settled(1, C1) }
}
