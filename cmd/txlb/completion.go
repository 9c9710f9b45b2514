package main

import (
	"context"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/txlb/txlb/config"
	"github.com/txlb/txlb/internal/admin"
	"github.com/txlb/txlb/internal/admin/socket"
	"github.com/txlb/txlb/internal/words"
)

// The scripts only pass words to txlb __complete and its answer to the shell. What
// can be completed is decided here: from the table of commands, their flags, the
// table of verbs and, if it answers, the configuration of the running txlb.
var completionScripts = map[string]string{
	"bash": `# bash completion for txlb: source <(txlb completion bash)
_txlb() {
    local IFS=$'\n' said
    COMPREPLY=()
    said=($("$1" __complete bash "$1" "$2" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
    case ${said[0]} in
    files)
        compopt -o default 2>/dev/null
        ;;
    nospace)
        compopt -o nospace 2>/dev/null
        COMPREPLY=("${said[@]:1}")
        ;;
    words)
        COMPREPLY=("${said[@]:1}")
        ;;
    esac
}
complete -F _txlb txlb
`,
	"zsh": `#compdef txlb
# zsh completion for txlb: source <(txlb completion zsh), behind compinit
_txlb() {
    local -a said values shown
    local line value
    said=("${(@f)$("${(Q)words[1]}" __complete zsh "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    case $said[1] in
    files)
        _files
        ;;
    words|nospace)
        for line in "${(@)said[2,-1]}"; do
            value=${line%%$'\t'*}
            values+=("$value")
            if [[ $line == *$'\t'* ]]; then
                shown+=("$value  -- ${line#*$'\t'}")
            else
                shown+=("$value")
            fi
        done
        if [[ $said[1] == nospace ]]; then
            compadd -S '' -l -d shown -a values
        else
            compadd -l -d shown -a values
        fi
        ;;
    esac
}
if [[ $funcstack[1] == _txlb ]]; then
    _txlb "$@"
else
    compdef _txlb txlb
fi
`,
	"fish": `# fish completion for txlb: txlb completion fish | source
function __txlb_complete
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    set -l last (string unescape -- "$typed")
    or set last "$typed"
    set -l said ($words[1] __complete fish $words[2..-1] "$last" 2>/dev/null)
    switch "$said[1]"
        case files
            __fish_complete_path "$typed"
        case words nospace
            printf '%s\n' $said[2..-1]
    end
end
complete -c txlb -f -a '(__txlb_complete)'
`,
}

// completionCommand prints the script of a shell.
func completionCommand(_ context.Context, c console, words []string) int {
	fmt.Fprint(c.out, completionScripts[words[0]])
	return exitOK
}

const completionHelp = `  bash   source <(txlb completion bash)         in ~/.bashrc
  zsh    source <(txlb completion zsh)          in ~/.zshrc, behind compinit
  fish   txlb completion fish > ~/.config/fish/completions/txlb.fish`

// completeWord is the hidden command that the scripts call.
const completeWord = "__complete"

// askFor is how long to wait for a running txlb. A user who pressed Tab is waiting.
const askFor = 2 * time.Second

// candidate is a possible completion of a word.
type candidate struct{ value, help string }

// completeCommand prints the completions of the last word. The first line is files,
// words or nospace (words that no blank follows). Then comes a line for each word:
// the word, a tab and its meaning. Bash splits words where other shells do not; so
// its script passes the command, the piece that bash replaces, and the whole line.
func completeCommand(ctx context.Context, c console, args []string) int {
	if len(args) < 2 {
		return exitUsage
	}
	shell, words := args[0], args[1:]
	var partial, piece string
	var quote byte
	if shell == "bash" {
		if len(words) != 3 {
			return exitUsage
		}
		var name string
		name, piece = words[0], words[1]
		words, partial, quote = splitLine(words[2])
		i := slices.Index(words, name)
		words = words[i+1:]
	} else {
		words, partial = words[:len(words)-1], words[len(words)-1]
	}
	found, files := completions(ctx, words, partial)
	if files {
		fmt.Fprintln(c.out, "files")
		return exitOK
	}
	found = slices.DeleteFunc(found, func(f candidate) bool {
		return len(f.value) < len(partial) || !strings.EqualFold(f.value[:len(partial)], partial) || strings.ContainsAny(f.value, "\n\t")
	})
	mode := "words"
	if len(found) > 0 && !slices.ContainsFunc(found, func(f candidate) bool { return !strings.HasSuffix(f.value, "=") }) {
		mode = "nospace"
	}
	fmt.Fprintln(c.out, mode)
	for _, f := range found {
		switch {
		case shell == "bash":
			// Bash keeps what stands before the piece that it replaces.
			plain, _, _ := unquote(piece)
			kept := 0
			if strings.HasSuffix(partial, plain) {
				kept = len(partial) - len(plain)
			}
			fmt.Fprintln(c.out, escape(f.value[kept:], quote))
		case f.help != "":
			fmt.Fprintf(c.out, "%s\t%s\n", f.value, f.help)
		default:
			fmt.Fprintln(c.out, f.value)
		}
	}
	return exitOK
}

// completions returns the completions of partial after words, or that it is a file
// name.
func completions(ctx context.Context, words []string, partial string) (found []candidate, files bool) {
	switch {
	case len(words) > 0 && strings.HasPrefix(words[0], "-"):
		words = append([]string{"run"}, words...)
	case len(words) == 0 && strings.HasPrefix(partial, "-"):
		return []candidate{{"-c", "run this configuration"}, {"--help", "list the commands"}, {"--version", "print the version"}}, false
	case len(words) == 0:
		for _, cmd := range commands() {
			found = append(found, candidate{cmd.name, cmd.help})
		}
		return append(found, candidate{"help", "list the commands"}), false
	}
	i := slices.IndexFunc(commands(), func(c command) bool { return c.name == words[0] })
	if i < 0 {
		return nil, false
	}
	cmd := commands()[i]
	flags, _ := cmd.flags()
	given := map[string]string{}
	words = words[1:]
	for len(words) > 0 && strings.HasPrefix(words[0], "-") && words[0] != "-" {
		name, value, with := strings.Cut(strings.TrimLeft(words[0], "-"), "=")
		words = words[1:]
		if f := flags.Lookup(name); f != nil && valued(f) && !with {
			if len(words) == 0 {
				return nil, true // every value that a flag has is a file or a socket
			}
			value, words = words[0], words[1:]
		}
		given[name] = value
	}
	positional, any := cmd.arguments()
	if len(words) == 0 && (strings.HasPrefix(partial, "-") || partial == "" && len(positional) == 0) {
		flags.VisitAll(func(f *flag.Flag) {
			if _, twice := given[f.Name]; !twice {
				_, help := flag.UnquoteUsage(f)
				found = append(found, candidate{dashed(f.Name), help})
			}
		})
		slices.SortFunc(found, func(a, b candidate) int { return strings.Compare(a.value, b.value) })
		return found, false
	}
	switch {
	case any: // of ctl
		return verbCompletions(ctx, given, words, partial), false
	case len(words) >= len(positional):
		return nil, false
	case strings.Contains(positional[len(words)], "|"):
		for _, choice := range strings.Split(positional[len(words)], "|") {
			found = append(found, candidate{value: choice})
		}
		return found, false
	}
	return nil, true
}

// valued tells whether a flag takes a value.
func valued(f *flag.Flag) bool {
	value, _ := flag.UnquoteUsage(f)
	return value != ""
}

// verbCompletions returns the completions of a runtime command.
func verbCompletions(ctx context.Context, given map[string]string, args []string, partial string) []candidate {
	line := ""
	if len(args) > 0 {
		line = words.Join(args) + " "
	}
	key, _, named := strings.Cut(partial, "=")
	switch {
	case named && words.IsKey(strings.TrimPrefix(key, "--")):
		line += key + "="
	case words.Quote(partial) == partial: // the shell can tell what fits a word in quotes
		line += partial
	}
	helps := map[string]string{}
	for _, v := range admin.Verbs() {
		first, second, two := strings.Cut(v.Name, " ")
		switch {
		case len(args) == 0 && !two:
			helps[first] = v.Help
		case len(args) == 1 && two && strings.EqualFold(first, args[0]):
			helps[second] = v.Help
		}
	}
	var found []candidate
	for _, word := range admin.Complete(runningConfig(ctx, given["s"], given["c"]), runningSessions(ctx, given["s"], given["c"]), runningNodes(ctx, given["s"], given["c"]), line) {
		value := words.Unquote(word)
		found = append(found, candidate{value, helps[value]})
	}
	return found
}

// runningConfig asks a running txlb for its configuration; nil if it does not
// answer.
func runningConfig(ctx context.Context, path, file string) *config.Config {
	text, ok := askRunning(ctx, path, file, "show config")
	if !ok {
		return nil
	}
	c, _ := config.Parse("running", []byte(text))
	return c
}

// runningSessions asks a running txlb for the IDs of sessions, as many as are of use to choose
// from.
func runningSessions(ctx context.Context, path, file string) func(ended bool) []string {
	return func(ended bool) (ids []string) {
		lists := []string{"show sessions max=100"}
		if ended {
			lists = append(lists, "show sessions max=100 --ended")
		}
		for _, list := range lists {
			text, _ := askRunning(ctx, path, file, list)
			for _, line := range strings.Split(text, "\n")[1:] { // behind the head
				if id, _, ok := strings.Cut(line, " "); ok {
					if _, err := admin.ParseSessionID(id); err == nil {
						ids = append(ids, id)
					}
				}
			}
		}
		return ids
	}
}

// runningNodes asks a running txlb for the names of the nodes of its fleet.
func runningNodes(ctx context.Context, path, file string) func() []string {
	return func() (names []string) {
		text, _ := askRunning(ctx, path, file, "show fleet")
		_, table, _ := strings.Cut(text, "\nNODE ")
		for _, line := range strings.Split(table, "\n")[1:] { // behind the head
			name, _, ok := strings.Cut(line, " ")
			if !ok || name == "" || strings.HasSuffix(name, ":") || strings.HasSuffix(name, ",") { // what follows the nodes
				break
			}
			names = append(names, name)
		}
		return names
	}
}

// askRunning returns a running txlb's answer to a command; ok is false if it does not answer.
func askRunning(ctx context.Context, path, file, command string) (text string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	answer := make(chan *string, 1)
	go func() { answer <- askSocket(ctx, path, file, command) }() // ends with the process where nobody answers
	select {
	case a := <-answer:
		if a != nil {
			return *a, true
		}
	case <-ctx.Done():
	}
	return "", false
}

func askSocket(ctx context.Context, path, file, command string) *string {
	to, err := socketPath(path, file)
	if err != nil {
		return nil
	}
	client, err := socket.Dial(to)
	if err != nil {
		return nil
	}
	defer func() { _ = client.Close() }()
	a, err := client.Do(ctx, command)
	if err != nil || a.Err() != nil {
		return nil
	}
	return &a.Text
}

// splitLine splits a line as a shell does, into the complete words and the one that
// is being typed, with its open quote. Only the last command of the line counts.
func splitLine(line string) (words []string, partial string, open byte) {
	for {
		line = strings.TrimLeft(line, " \t")
		word, rest, quote := unquote(line)
		if rest == "" {
			return words, word, quote
		}
		if strings.ContainsRune(";|&", rune(rest[0])) {
			words = nil
			line = strings.TrimLeft(rest, ";|& \t")
			continue
		}
		words = append(words, word)
		line = rest
	}
}

// unquote reads the first word of a line. It returns the quote that is open at its
// end.
func unquote(line string) (word, rest string, open byte) {
	var b strings.Builder
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case open == '\'' && c != '\'', open == '"' && c != '"' && c != '\\':
			b.WriteByte(c)
		case open == c && c != 0:
			open = 0
		case open == 0 && (c == '"' || c == '\''):
			open = c
		case c == '\\' && i+1 < len(line):
			i++
			if open == '"' && !strings.ContainsRune("\"\\$`", rune(line[i])) {
				b.WriteByte(c)
			}
			b.WriteByte(line[i])
		case c == '\\':
		case strings.IndexByte(" \t;|&", c) >= 0:
			return b.String(), line[i:], 0
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", open
}

var (
	plainForShell = regexp.MustCompile(`[^A-Za-z0-9_./:=@%+,\-\x80-\xff]`)
	inDouble      = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`")
)

// escape quotes a value for a shell in which quote is open.
func escape(value string, quote byte) string {
	switch quote {
	case '\'':
		return strings.ReplaceAll(value, `'`, `'\''`)
	case '"':
		return inDouble.Replace(value)
	}
	return plainForShell.ReplaceAllStringFunc(value, func(s string) string { return `\` + s })
}
