/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * diet.pml - remap and restore of one folio, for the model checker Spin: every interleaving of its owner, of whoever
 * restores what was freed, and of two lock-free readers, with stale translations.
 *
 * Owns: nothing outside itself.  Keeps: M1, M2, M5, M6, M8 and lock-freedom of readers, by assertions named after the
 * law.  Does not: model weak memory order, tables, or leaves that are split (README.md).  How mf_quiesce() is built is
 * quiesce.pml's matter.
 *
 *      slot 0      [ head | tail ]            frame 0, or 1 when the head has moved
 *      slot X      [  X0  |  X1  ]            its own frame, or read-only:
 *
 *        FIRST_TAIL  hvo-5.14   a kept slot full of tails, which is read-only itself meanwhile
 *        FAKE_HEADS  hvo-5.18   slot 0, so that the head's record is read at X0
 *        ZONE_TAILS  hvo-7.1    the zone's frame full of tails; and the head moves to another frame
 *
 * The life before: X0 and X1 were a small folio, whose count readers may have loaded before it was freed and became tails;
 * with HEAD_ALONE the head's frame was one, too.
 * Steps are labelled with the C functions they stand for; every -D is a row of README.md's table.
 */

#define HEAD0	0	/* descriptors, and the records that may stand there */
#define X0	1
#define X1	2

#define FREE	0	/* first words */
#define SMALL	1	/* a small folio: of slot 0's head alone, or of X0 and X1 */
#define PAIR	2	/* ... whose tail is X1 */
#define HEAD	3	/* head of the folio */
#define MARKED	4	/* ... on its diet */
#define TAIL	5	/* ... its tails */
#define GARBAGE	6	/* what a frame's other owner left there */

#define OWNER		0	/* CPUs: one per process */
#define RESTORER	1
#define BELOW		2
#define ABOVE		3
#define NR_CPUS		4

/* The second operand is always false; it is there to be printed with the assertion. */
#define law(cond, name)	assert((cond) || name)
hidden byte M1_two_answers, M1_wrong_owner, M1_bad_count, M1_unwritten_record, M2_reader_waits;
hidden byte M5_stale_access, M6_write_to_alias, M8_mark;

/* As in fold.pml. */
#define witness_small		1
#define witness_alias		2
#define witness_stale		3
#define witness_overtaken	4
#define witness_moved		5
#define witness_busy		6
#define witness_kept		7
#define witness_restored	8
#ifdef WITNESS
#define witness(what)	assert(WITNESS != what || what##_reached)
#else
#define witness(what)	skip
#endif
hidden byte witness_small_reached, witness_alias_reached, witness_stale_reached, witness_overtaken_reached;
hidden byte witness_moved_reached, witness_busy_reached, witness_kept_reached, witness_restored_reached;

/* Frames that slot 0 may be in: words of its two descriptors, and the count of the first. */
byte head_word[2], head_next[2], head_count[2];
bit head_is_map[2];	/* the frame is ours; otherwise another owner writes to it */
bit head_at;		/* slot 0's entry */
bit head_stale;		/* the entry's previous translation may be in use: by any CPU, any time */

byte word[2];		/* X's own frame */
byte count;		/* of X0, while it is a small folio */
bit x_is_map;
bit x_alias;		/* X's entry */
bit x_stale;
bit alias_of;		/* FAKE_HEADS: the frame that aliases show */

byte tails;		/* FIRST_TAIL: every word of the kept slot */
bit tails_alias;	/* its entry is read-only */
bit tails_stale;

bit small, alone, big;	/* ghost: which of the folios exist: of X, of slot 0's head, of all */
bit kept;		/* on the zone's list: freed, still on its diet */

bit inside[NR_CPUS];	/* in a reader section */
bit awaited[NR_CPUS];	/* mf_quiesce() waits for that section's end */
bit overtaken[NR_CPUS];	/* ghost: a folio came or went since the reader set out */
byte done;		/* ghost: processes that ended */

hidden byte via, via_alias, saw;

/* Who meets a marked head asks the next descriptor for it. */
#if defined(FAKE_HEADS) && !defined(NO_NEIGHBOUR_CHECK)
#define marks_lead_on	true
#else
#define marks_lead_on	false
#endif


/* ---- Hardware ------------------------------------------------------------------------------------------------- */

/* Which frame an access to slot 0 meets: the entry's, or the one before it as long as nothing was flushed. */
inline at_head()
{
	if
	:: via = head_at
	:: head_stale -> via = !head_at
	fi;
	law(head_is_map[via], M5_stale_access)
}

/* The same for X; an alias of the head leads to the frame where the head was when it was made. */
inline at_x()
{
	if
	:: via_alias = x_alias
	:: x_stale -> via_alias = !x_alias; witness(witness_stale)
	fi;
	law(via_alias || x_is_map, M5_stale_access);
#ifdef FAKE_HEADS
	law(!via_alias || head_is_map[alias_of], M5_stale_access)
#endif
}

/* Also a compare-and-swap that fails: it needs a writable translation all the same. */
inline writes_x()
{
	at_x();
	law(!via_alias, M6_write_to_alias)
}

inline writes_tails()
{
#ifdef FIRST_TAIL
	law(!tails_alias && !tails_stale, M6_write_to_alias)
#else
	skip
#endif
}

inline writes(rec)
{
	if
	:: rec == HEAD0 -> at_head()
	:: else -> writes_x()
	fi
}

inline reads(i)
{
	if
	:: i == HEAD0 -> at_head(); saw = head_word[via]
	:: else ->
		at_x();
		if
		:: !via_alias -> saw = word[i - X0]
		:: else ->
#if defined(FIRST_TAIL)
			saw = tails
#elif defined(FAKE_HEADS)
			saw = (i == X0 -> head_word[alias_of] : head_next[alias_of])
#else
			saw = TAIL
#endif
		fi
	fi;
	law(saw != GARBAGE, M1_unwritten_record)
}

inline reads_next(i)
{
	if
	:: i == HEAD0 -> at_head(); saw = head_next[via]; law(saw != GARBAGE, M1_unwritten_record)
	:: else -> reads(X1)
	fi
}

inline reads_count(rec, n)
{
	if
	:: rec == HEAD0 -> at_head(); n = head_count[via]
	:: else ->
		at_x();
#ifdef FAKE_HEADS
		n = (via_alias -> (rec == X0 -> head_count[alias_of] : 0) : (rec == X0 -> count : 0))
#else
		n = (via_alias || rec != X0 -> 0 : count)
#endif
	fi
}

/* ---- Steps, each labelled with the C function it stands for ---------------------------------------------------- */

#define STEP(name)	name: do_##name()

inline do_mf_quiesce()
{
	d_step { awaited[BELOW] = inside[BELOW]; awaited[ABOVE] = inside[ABOVE] }
	!awaited[BELOW] && !awaited[ABOVE]
}

inline do_mark()
{
	atomic { at_head(); head_word[via] = MARKED }
}

inline do_diet_restored()
{
	atomic { at_head(); head_word[via] = HEAD }
}

/* To a frame that nothing shows, through the direct map. */
inline do_diet_copy_kept()
{
	d_step {
		head_is_map[!head_at] = 1;
		head_word[!head_at] = head_word[head_at];
		head_next[!head_at] = head_next[head_at];
		head_count[!head_at] = head_count[head_at]
	}
}

/* SWITCH_BEFORE_COPY: to the frame that slot 0 shows already. */
inline do_late_copy()
{
	d_step {
		head_word[head_at] = head_word[!head_at];
		head_next[head_at] = head_next[!head_at];
		head_count[head_at] = head_count[!head_at]
	}
}

inline do_move_head()
{
	d_step { head_is_map[!head_at] = 1; head_at = !head_at; head_stale = 1 }
}

inline do_diet_protect()
{
	d_step { tails_alias = !tails_alias; tails_stale = 1 }
}

inline do_alias_slots()
{
	d_step { alias_of = head_at; x_alias = 1; x_stale = 1 }
}

/* All CPUs at once loses nothing: one that flushes earlier is one that chose the new translation. */
inline do_window_flush()
{
	d_step { head_stale = 0; x_stale = 0; tails_stale = 0 }
}

/* What nothing shows any more belongs to somebody else. */
inline do_release()
{
	d_step {
		if
		:: x_alias -> x_is_map = 0; word[0] = GARBAGE; word[1] = GARBAGE; count = 0
		:: else
		fi;
		head_is_map[!head_at] = 0; head_word[!head_at] = GARBAGE; head_next[!head_at] = GARBAGE;
		head_count[!head_at] = 0
	}
}

inline do_take_tails()
{
	d_step { x_is_map = 1; word[0] = TAIL; word[1] = TAIL }
}

inline do_restore_slots()
{
	d_step { x_is_map = 1; x_alias = 0; x_stale = 1 }
}

/* One entry for all slots, the kept ones included. */
inline do_restore_leaf()
{
	d_step { head_at = !head_at; head_stale = 1; x_alias = 0; x_stale = 1 }
}

#define QUIESCE	STEP(mf_quiesce)
#define MARK	STEP(mark)
#define COPY	STEP(diet_copy_kept)
#define ALIAS	STEP(alias_slots)
#define FLUSH	STEP(window_flush)
#define RELEASE	STEP(release)
#if defined(FIRST_TAIL)
#ifdef NO_PROTECT
#define SWITCH	ALIAS
#else
#define SWITCH	STEP(diet_protect); ALIAS
#endif
#elif defined(FAKE_HEADS)
#define SWITCH	ALIAS
#elif defined(SWITCH_BEFORE_COPY)
#define SWITCH	STEP(move_head); late_copy: do_late_copy(); ALIAS
#elif defined(MARK_AFTER_COPY)
#define SWITCH	COPY; MARK; STEP(move_head); ALIAS
#else
#define SWITCH	COPY; STEP(move_head); ALIAS
#endif
#if defined(NO_QUIESCE)
#define remap()	MARK; SWITCH; FLUSH; RELEASE
#elif defined(QUIESCE_AFTER_SWITCH)
#define remap()	MARK; SWITCH; QUIESCE; FLUSH; RELEASE
#elif defined(MARK_AFTER_COPY)
#define remap()	QUIESCE; SWITCH; FLUSH; RELEASE
#elif defined(MARK_AFTER_ALIAS)
#define remap()	QUIESCE; SWITCH; MARK; FLUSH; RELEASE
#elif defined(NO_FLUSH)
#define remap()	QUIESCE; MARK; SWITCH; RELEASE
#elif defined(RELEASE_BEFORE_FLUSH)
#define remap()	QUIESCE; MARK; SWITCH; RELEASE; FLUSH
#elif defined(UNFREEZE_BEFORE_FLUSH)
#define remap()	QUIESCE; MARK; SWITCH
#else
#define remap()	QUIESCE; MARK; SWITCH; FLUSH; RELEASE
#endif

#if defined(RESTORE_LEAF)
#define BACK	STEP(take_tails); copy_back: do_diet_copy_kept(); STEP(restore_leaf)
#elif defined(SWITCH_BEFORE_FILL)
#define BACK	STEP(restore_slots); STEP(take_tails)
#elif defined(FIRST_TAIL) && !defined(NO_PROTECT)
#define BACK	STEP(take_tails); STEP(restore_slots); unprotect: do_diet_protect()
#else
#define BACK	STEP(take_tails); STEP(restore_slots)
#endif
#define UNMARK		STEP(diet_restored)
#define FLUSH_RESTORED	flush_restored: do_window_flush()
#define RELEASE_KEPT	release_kept: do_release()
#if defined(UNMARK_BEFORE_FLUSH)
#define restore()	BACK; UNMARK; FLUSH_RESTORED; RELEASE_KEPT
#elif defined(RESTORE_WITHOUT_FLUSH)
#define restore()	BACK; RELEASE_KEPT; UNMARK
#elif defined(RELEASE_KEPT_BEFORE_FLUSH)
#define restore()	BACK; RELEASE_KEPT; FLUSH_RESTORED; UNMARK
#else
#define restore()	BACK; FLUSH_RESTORED; RELEASE_KEPT; UNMARK
#endif

/* ---- Folios come and go ----------------------------------------------------------------------------------------- */

inline published()
{
	overtaken[BELOW] = 1; overtaken[ABOVE] = 1
}

inline do_alloc_small()
{
	writes_x();
	word[0] = SMALL; word[1] = PAIR; count = 1; small = 1;
	published()
}

inline do_alloc_alone()
{
	at_head();
	head_word[via] = SMALL; head_count[via] = 1; alone = 1;
	published()
}

inline do_alloc_big()
{
	writes_x();
	writes_tails();
	at_head();
	word[0] = TAIL; word[1] = TAIL; tails = TAIL;
	head_next[via] = TAIL; head_word[via] = HEAD; head_count[via] = 1; big = 1;
	published()
}

/* Every descriptor is written. */
inline do_zone_free_folio()
{
	writes_x();
	writes_tails();
	at_head();
	word[0] = FREE; word[1] = FREE; tails = FREE;
	head_next[via] = FREE; head_word[via] = FREE; big = 0;
	published()
}

/* mf_folio_put: a full put; whoever drops the last reference frees, readers too. */
inline do_mf_folio_put(rec)
{
	atomic {
		writes(rec);
		if
		:: rec == HEAD0 ->
			law((big || alone) && head_count[via] > 0, M1_bad_count);
			head_count[via]--;
			if
			:: head_count[via] > 0 -> goto put_done
			:: else
			fi
		:: else ->
			law(rec == X0 && small && count > 0, M1_bad_count);
			count--;
			if
			:: count > 0 -> goto put_done
			:: else
			fi
		fi
	}
kept_put:
	atomic {
		if
		:: rec == HEAD0 && alone -> at_head(); head_word[via] = FREE; alone = 0; published()
		:: rec == HEAD0 && !alone ->
			at_head();
#ifndef NO_KEEP
			if
			:: head_word[via] == MARKED -> kept = 1; witness(witness_kept); goto put_done
			:: else
			fi;
#endif
			do_zone_free_folio()
		:: rec == X0 -> writes_x(); word[0] = FREE; word[1] = FREE; small = 0; published()
		fi
	}
put_done:
	skip
}

/* Whoever holds a folio asks all its descriptors: each must lead to it. */
inline holds(rec)
{
	atomic {
		if
		:: rec == HEAD0 && alone -> at_head(); law(head_word[via] == SMALL && head_count[via] > 0, M1_bad_count)
		:: rec == HEAD0 && !alone ->
			law(big, M1_wrong_owner);
			at_head();
			law(head_count[via] > 0, M1_bad_count);
			law(head_word[via] == HEAD || head_word[via] == MARKED, M1_two_answers);
			reads(X1);
			law(saw == TAIL, M1_two_answers);
			reads(X0);
			law(saw == TAIL || (saw == MARKED && via_alias && marks_lead_on), M1_two_answers)
		:: rec == X0 ->
			law(small, M1_wrong_owner);
			at_x();
			law(!via_alias && word[0] == SMALL && word[1] == PAIR && count > 0, M1_two_answers)
		fi
	}
}

/* ---- The owner: allocates, puts on the diet, takes off it, frees ------------------------------------------------ */

proctype owner()
{
	bit mine_small, mine_alone, mine_big;
	byte rec;

	do
	:: break
	:: atomic { !small && !big -> do_alloc_small(); mine_small = 1 };
		holds(X0)
#ifdef HEAD_ALONE
	:: atomic { !alone && !big -> do_alloc_alone(); mine_alone = 1 }
#endif
	:: atomic { !small && !alone && !big -> do_alloc_big(); mine_big = 1 }
	:: atomic { mine_small -> rec = X0; mine_small = 0 };
		goto put
	:: atomic { mine_alone -> rec = HEAD0; mine_alone = 0 };
		goto put
	:: atomic { mine_big -> rec = HEAD0; mine_big = 0 };
put:
		do_mf_folio_put(rec);
		rec = 0
	:: mine_big ->
mf_folio_freeze:
		atomic {
			at_head();
			if
			:: head_count[via] != 1 -> witness(witness_busy); goto busy
			:: else
			fi;
#ifndef NO_FREEZE
			head_count[via] = 0;
#endif
			if
			:: head_word[via] == MARKED -> goto off
			:: else
			fi
		};
		remap();
		goto thaw;
off:
		restore();
thaw:
#ifndef NO_FREEZE
mf_folio_unfreeze:
		atomic { at_head(); law(head_count[via] == 0, M1_bad_count); head_count[via] = 1 };
#endif
#ifdef UNFREEZE_BEFORE_FLUSH
		holds(HEAD0);
		FLUSH;
		RELEASE;
#endif
		law(x_alias == (head_word[head_at] == MARKED), M8_mark);
busy:
		skip
	od;
	done++
}

/* ---- Whoever needs memory restores what is kept ----------------------------------------------------------------- */

proctype restorer()
{
	do
	:: break
	:: atomic { kept -> kept = 0 };
kept_restore:
		restore();
zone_free_folio:
		atomic { do_zone_free_folio(); witness(witness_restored) }
	od;
	done++
}

/* ---- Readers: mf_folio_try_get() from a descriptor, mf_pfn_try_get() from a pfn ---------------------------------- */

/* The tables above never change, so a lookup from above begins and starts again with the same load as one from below. */
inline do_resolve(i, found)
{
	overtaken[cpu] = 0;
mf_page_folio:
	atomic {
		reads(i);
		if
		:: saw == TAIL -> found = HEAD0
		:: saw == PAIR -> found = X0
		:: saw == MARKED && marks_lead_on -> goto mf_page_folio_special
		:: else -> found = i
		fi;
		goto answered
	};
mf_page_folio_special:
	atomic {
		reads_next(i);
		if
		:: saw == TAIL ->
			found = HEAD0;
			if
			:: i == X0 -> witness(witness_alias)
			:: else
			fi
		:: saw == PAIR -> found = X0
		:: else ->
			law(overtaken[cpu], M2_reader_waits);
			witness(witness_overtaken);
			overtaken[cpu] = 0;
			goto mf_page_folio
		fi
	};
answered:
	atomic {
		law(overtaken[cpu] || found == (big -> HEAD0 : (i == HEAD0 -> HEAD0 : (small -> X0 : i))), M1_two_answers)
	}
}

proctype reader(byte cpu)
{
	byte i;
	bit again;
	byte rec;
	byte found;
	byte n;

	do
	:: break
	/* mf_reader_enter; or a bare lookup, which needs no section since it only reads. */
	:: atomic { if :: i = X0 :: i = (cpu == BELOW -> X1 : HEAD0) fi; if :: inside[cpu] = 1 :: cpu == ABOVE fi };
resolve:
		do_resolve(i, found);
		if
		:: !inside[cpu] -> goto leave
		:: inside[cpu] && again && found == rec -> goto held
		:: inside[cpu] && again && found != rec -> witness(witness_moved); goto drop
		:: inside[cpu] && !again -> rec = found
		fi;
load_count:
		atomic {
			reads_count(rec, n);
			if
			:: n == 0 -> goto leave
			:: else
			fi
		};
mf_folio_try_get:
		atomic {
			writes(rec);
			if
			:: rec == HEAD0 && head_count[via] == n -> head_count[via]++; n = 0
			:: rec == X0 && count == n -> count++; n = 0
			:: else -> n = 0; goto load_count
			fi
		};
		again = 1;
		goto resolve;
held:
		atomic { found = 0; inside[cpu] = 0; awaited[cpu] = 0 };	/* mf_reader_exit */
		if
		:: rec == X0 -> witness(witness_small)
		:: else
		fi;
		holds(rec);
drop:
		do_mf_folio_put(rec);
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

/* When all have ended: what exists has one holder, or is kept; the mark and the map agree. */
init
{
	atomic {
		head_is_map[0] = 1; x_is_map = 1;
		run owner();
		run restorer();
		run reader(BELOW);
		run reader(ABOVE)
	}
	done == NR_CPUS;
	d_step {
		law(x_alias == (head_word[head_at] == MARKED) && x_is_map == !x_alias, M8_mark);
		law(!small || count == 1, M1_bad_count);
		law(!alone || head_count[head_at] == 1, M1_bad_count);
		law(!big || head_count[head_at] == !kept, M1_bad_count)
	}
}
