# SPDX-License-Identifier: MIT
# Bash completion for guestclock: verbs and options as its own help lists them.
_guestclock()
{
	local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words

	COMPREPLY=()
	if [ "$COMP_CWORD" -eq 1 ]; then
		words=$(guestclock --help 2>/dev/null | sed -n 's/^  \([a-z]\{1,\}\)  .*/\1/p')
		COMPREPLY=($(compgen -W "$words --help --version" -- "$current"))
		return
	fi
	case $previous in
	--gap)
		COMPREPLY=($(compgen -W "count freeze wall cap=" -- "$current"))
		return ;;
	--color)
		COMPREPLY=($(compgen -W "auto always never" -- "$current"))
		return ;;
	--force | explain)
		words=$(guestclock explain 2>/dev/null | awk 'NF == 0 { exit } NR > 1 { print $1 }')
		COMPREPLY=($(compgen -W "$words" -- "$current"))
		return ;;
	esac
	case ${COMP_WORDS[1]}:$COMP_CWORD in
	migrate:2 | save:2 | check:2)
		if [[ $current != -* ]]; then
			words=$(virsh list --name 2>/dev/null)
			COMPREPLY=($(compgen -W "$words" -- "$current"))
			return
		fi ;;
	esac
	if [[ $current == -* ]]; then
		words=$(guestclock "${COMP_WORDS[1]}" --help 2>/dev/null |
			sed -n 's/^ *\(-[a-z], \)\{0,1\}\(--[a-z-]\{1,\}\).*/\2/p')
		COMPREPLY=($(compgen -W "$words" -- "$current"))
		return
	fi
	COMPREPLY=($(compgen -f -- "$current"))
}
complete -o filenames -o bashdefault -F _guestclock guestclock
