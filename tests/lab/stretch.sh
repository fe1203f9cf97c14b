#!/bin/sh
# SPDX-License-Identifier: MIT
# One stretch of a guest's life on this host: minivmm runs it until it has reported so often
# and minivmm has said what is waited for; then it is saved.
#
#	stretch.sh REPORTS WORDS SAVE_TO GAP SINCE ARGUMENT...
#
# WORDS: what to wait for in minivmm's standard error, "+" between them, "-" for nothing.
# SAVE_TO: a directory, "-" for none.
# GAP SINCE: ns, and a reading of the source's CLOCK_REALTIME: this host's wall clock is
# declared to be off by as much as makes the gap GAP; "- -" for no such word. Two emulated
# hosts in virtual time have no other common time than the one that is declared.
#
# All that the test needs comes out on standard output, each line with its kind in front.
reports=$1 words=$2 to=$3 gap=$4 since=$5
shift 5
cd /tmp
rm -f in out err
mkfifo in
: > out
: > err
hostclock > clock
read -r tsc raw real rest < clock
sed 's/^/began /' clock
if [ $gap != - ]; then
	off=$((real - since - gap))
	set -- --disagreement $off "$@"
	echo disagreement $off
fi
minivmm "$@" < in > out 2> err &
vmm=$!
exec 3> in

said() {
	[ $(grep -c '@G.* ck=' out) -ge $reports ] || return 1
	[ "$words" = - ] && return 0
	for word in $(echo "$words" | tr '+ ' ' .'); do
		grep -q "$word" err || return 1
	done
}

# wait_for TRIES FUNCTION: until it is true or the process has ended
wait_for() {
	tries=$1
	until $2; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] && grep -q '^State:.[^Z]' /proc/$vmm/status || return 1
		sleep 0.05
	done
}

saved() {
	grep -q 'minivmm: saved' err
}

if wait_for 600 said; then
	for file in /sys/kernel/debug/kvm/$vmm-*/vcpu*/tsc-offset; do
		echo "offset $(cat $file)"
		ratio=${file%offset}scaling-ratio
		[ ! -f $ratio ] || echo "ratio $(cat $ratio) $(cat $ratio-frac-bits)"
	done
	if [ $to != - ]; then
		rm -rf $to
		(echo "save $to" >&3)
		wait_for 600 saved || echo late
	fi
else
	echo late
fi
hostclock | sed 's/^/ended /'
(echo quit >&3) 2> /dev/null
exec 3>&-
wait $vmm
echo "status $?"
sed 's/^/said /' err
sed 's/^/guest /' out
