#compdef guestclock
# SPDX-License-Identifier: MIT
# Zsh completion for guestclock: verbs and options as its own help lists them, with what it says of them.

# Lines "WORD<tab>WHAT" as matches, each with its line of explanation.
_guestclock_offer()
{
	local line
	local -a matches displays

	while IFS= read -r line; do
		matches+=("${line%%$'\t'*}")
		displays+=("${line/$'\t'/  -- }")
	done
	(( $#matches )) && compadd "$@" -l -d displays -a matches
}

_guestclock_verbs()
{
	guestclock --help 2>/dev/null | sed -n $'s/^  \\([a-z]\\{1,\\}\\)  *\\(.*\\)/\\1\t\\2/p'
	print -l -- $'--help\tthe verbs' $'--version\twhich guestclock this is'
}

_guestclock_options()
{
	guestclock "$1" --help 2>/dev/null |
		sed -n $'s/^ *\\(-[a-z], \\)\\{0,1\\}\\(--[a-z-]\\{1,\\}\\)\\( [A-Z][^ ]*\\)\\{0,1\\}  *\\(.*\\)/\\2\t\\4/p'
}

_guestclock_findings()
{
	guestclock explain 2>/dev/null | awk 'NF == 0 { exit } NR > 1 { print $1 }'
}

_guestclock()
{
	local current=${words[CURRENT]} previous=${words[CURRENT-1]}

	if (( CURRENT == 2 )); then
		_guestclock_verbs | _guestclock_offer
		return
	fi
	case $previous in
	--gap)
		compadd count freeze wall
		compadd -S '' -- cap= ;;
	--color)
		compadd auto always never ;;
	--force | explain)
		compadd -- ${(f)"$(_guestclock_findings)"} ;;
	*)
		if [[ $current == -* ]]; then
			_guestclock_options "${words[2]}" | _guestclock_offer
		elif (( CURRENT == 3 )) && [[ ${words[2]} == (migrate|save|check) ]]; then
			compadd -- ${(f)"$(virsh list --name 2>/dev/null)"}
		else
			_files
		fi ;;
	esac
}

_guestclock "$@"
