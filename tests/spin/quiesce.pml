/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * quiesce.pml - reader sections and mf_quiesce() by epochs, for the model checker Spin, with store buffers.
 *
 * Owns: nothing outside itself.  Keeps: what fold.pml assumes: when mf_quiesce() returns, every section that may have
 * seen a count above 0 has ended.  Does not: model nesting (a counter of the same CPU) or reordering beyond what store
 * buffers do (a later load passes an earlier store), which is what the fences of core/memmap/reader.c are for.
 *
 * Two readers, two folders of different blocks at once, each folding twice.
 */

#define NR	2	/* readers, and folders */
#define ROUNDS	2

#define law(cond, name)	assert((cond) || name)
hidden byte M6_write_after_quiesce;

/* As in fold.pml. */
#define witness_waits	1
#define witness_passes	2
#ifdef WITNESS
#define witness(what)	assert(WITNESS != what || what##_reached)
#else
#define witness(what)	skip
#endif
hidden byte witness_waits_reached, witness_passes_reached;

byte map_epoch = 1;
byte slot[NR];		/* reader->epoch, as other CPUs see it */
bit whole[NR];		/* the parent's word says whole, the counts are 0, as other CPUs see it */
bit unlinked[NR];	/* ghost: the slot is read-only or gone */

/* Store buffers, one store deep: a second store waits for the first. */
bit slot_buffered[NR], whole_buffered[NR];
byte slot_value[NR];

inline store_slot(r, value)
{
	atomic { !slot_buffered[r] -> slot_buffered[r] = 1; slot_value[r] = value }
}

active proctype store_buffers()
{
end:
	do
	:: atomic { slot_buffered[0] -> slot[0] = slot_value[0]; slot_buffered[0] = 0; slot_value[0] = 0 }
	:: atomic { slot_buffered[1] -> slot[1] = slot_value[1]; slot_buffered[1] = 0; slot_value[1] = 0 }
	:: atomic { whole_buffered[0] -> whole[0] = 1; whole_buffered[0] = 0 }
	:: atomic { whole_buffered[1] -> whole[1] = 1; whole_buffered[1] = 0 }
	od
}

proctype reader(byte r)
{
	byte epoch;
	bit f;

	do
	:: break
	:: atomic { if :: f = 0 :: f = 1 fi };
#ifndef LOOKUP_BEFORE_ENTER
mf_reader_enter:
		epoch = map_epoch;
		store_slot(r, epoch);
#ifndef NO_READER_FENCE
		!slot_buffered[r];
#endif
#endif
lookup:		/* the count, which is 0 from the moment that the parent is whole */
		if
		:: whole[f] -> goto leave
		:: else
		fi;
#ifdef LOOKUP_BEFORE_ENTER
		epoch = map_epoch;
		store_slot(r, epoch);
		!slot_buffered[r];
#endif
compare_and_swap:
		law(!unlinked[f], M6_write_after_quiesce);
leave:
mf_reader_exit:
		store_slot(r, 0);
		epoch = 0
	od
}

/* The scan of mf_quiesce(): one reader after the other. */
inline scan()
{
	do
	:: r < NR ->
		if
		:: atomic { slot[r] == 0 || slot[r] >= now -> if :: slot[r] >= now -> witness(witness_passes) :: else fi }
		:: atomic { slot[r] != 0 && slot[r] < now -> witness(witness_waits) };
			slot[r] == 0 || slot[r] >= now
		fi;
		r++
	:: else -> break
	od
}

proctype folder(byte f)
{
	byte now, r, round;

	do
	:: round == ROUNDS -> break
	:: round < ROUNDS ->
#ifdef EPOCH_BEFORE_WHOLE
		atomic { map_epoch++; now = map_epoch };
#endif
fold_publish_whole:
		whole_buffered[f] = 1;
#ifndef NO_FOLDER_FENCE
		!whole_buffered[f];
#endif
mf_quiesce:
#ifdef NO_NEW_EPOCH
		now = map_epoch;
#elif !defined(EPOCH_BEFORE_WHOLE)
		atomic { map_epoch++; now = map_epoch };
#endif
#ifndef NO_SCAN
		scan();
#endif
window_unlink:
		unlinked[f] = 1;
		!whole_buffered[f];
unfold_publish:
		unlinked[f] = 0;
		d_step { whole[f] = 0; now = 0; r = 0; round++ }
	od
}

init
{
	atomic { run reader(0); run reader(1); run folder(0); run folder(1) }
}
