package source

import (
	"bytes"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of what is parsed. A file is bounded as in kubelet; one document a
// little tighter than one object in etcd (1.5 MiB). Tokens bound the number of
// nodes that a parser can make of a document, and so its memory and time: a
// kilobyte and a microsecond each at worst, with all copies. A large pod has a
// few thousand.
const (
	maxFileBytes = 10 << 20
	maxDocBytes  = 1 << 20
	maxDocs      = 5_000
	maxTokens    = 30_000
	maxDepth     = 100
)

// finding is one thing that is wrong with a file.
type finding struct {
	line    int // of the file, from 1; 0 unknown
	pod     string
	message string
}

// findings is why a file was refused.
type findings []finding

func findf(line int, format string, args ...any) findings {
	return findings{{line: line, message: fmt.Sprintf(format, args...)}}
}

// document is one document of a file.
type document struct {
	line int // the line of the file on which text begins, from 1
	text []byte
}

// documents cuts a file at the marks "---" and "...", which YAML allows nowhere
// else at the start of a line. What holds only comments and directives is left
// out. It stops behind maxDocs of them.
func documents(data []byte) []document {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var docs []document
	start, line, at := 0, 1, 1 // at: the line where the current document began
	add := func(end int) {
		if text := data[start:end]; !blank(text) {
			docs = append(docs, document{line: at, text: text})
		}
	}
	for off := 0; off < len(data) && len(docs) <= maxDocs; {
		end := len(data)
		if nl := bytes.IndexByte(data[off:], '\n'); nl >= 0 {
			end = off + nl + 1
		}
		if isMark(data[off:end]) {
			add(off)
			start, at = off+3, line // the rest of a mark's line belongs to the document
		}
		off = end
		line++
	}
	add(len(data))
	return docs
}

func isMark(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || bytes.IndexByte([]byte(" \t\r\n"), line[3]) >= 0
}

func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return false
		}
	}
	return true
}

// checkSize refuses a document whose parsing would cost more than its worth.
// It looks at bytes only, so a bomb costs no more than reading it.
func (d document) checkSize() findings {
	if len(d.text) > maxDocBytes {
		return findf(d.line, "document is %d bytes long, the limit is %d; put each pod into a document or file of its own", len(d.text), maxDocBytes)
	}
	tokens := 0
	for i, c := range d.text {
		switch c {
		case '\n', ',', '[', '{', ':':
			tokens++
		case ' ': // "- - - -" makes a sequence of each dash
			if i > 0 && (d.text[i-1] == '-' || d.text[i-1] == '?') {
				tokens++
			}
		}
	}
	if tokens > maxTokens {
		return findf(d.line, "document has about %d elements, the limit is %d; put each pod into a document or file of its own", tokens, maxTokens)
	}
	return nil
}

// merges says that the document may use merge keys. The strict conversion takes
// a field that overrides a merged one for one that stands twice.
func (d document) merges() bool { return bytes.Contains(d.text, []byte("<<")) }

// checkTree refuses what the fast conversion would get wrong: aliases that grow
// too large, a second document hidden behind a line break that only YAML takes
// for one, and fields that stand twice beside a merge key. Most manifests have
// none of these and are not parsed twice.
func (d document) checkTree() findings {
	aliases := bytes.IndexByte(d.text, '*') >= 0 && bytes.IndexByte(d.text, '&') >= 0
	if !aliases && !oddBreaks(d.text) && !d.merges() {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(d.text))
	var root yaml.Node
	if err := dec.Decode(&root); err != nil {
		return findf(d.line, "read YAML: %s", unquoted(err))
	}
	if err := dec.Decode(new(yaml.Node)); err == nil {
		return findf(d.line, "a document begins after an unusual line break; begin it with --- on a line of its own")
	}
	if d.merges() {
		if n := doubleKey(&root); n != nil {
			return findf(d.line+n.Line-1, "read YAML: key %s already set in map", quote(n.Value))
		}
	}
	g := growth{done: map[*yaml.Node]size{}}
	if s := g.of(&root, 0); s.nodes > maxTokens || s.bytes > maxDocBytes {
		return findf(d.line, "aliases make the document grow to more than %d elements or %d bytes", maxTokens, maxDocBytes)
	}
	return nil
}

// doubleKey finds a key that stands twice in one mapping. It follows no alias,
// so it visits each node once.
func doubleKey(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.MappingNode {
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind == yaml.ScalarNode && seen[k.Tag+" "+k.Value] {
				return k
			}
			seen[k.Tag+" "+k.Value] = true
		}
	}
	for _, c := range n.Content {
		if found := doubleKey(c); found != nil {
			return found
		}
	}
	return nil
}

// oddBreaks says that text holds a carriage return without a line feed, or one
// of the Unicode line breaks of YAML 1.1.
func oddBreaks(text []byte) bool {
	for i, c := range text {
		if c == '\r' && (i+1 == len(text) || text[i+1] != '\n') {
			return true
		}
	}
	s := string(text)
	return strings.Contains(s, "\u0085") || strings.Contains(s, "\u2028") || strings.Contains(s, "\u2029")
}

// size is what a node costs with all aliases written out.
type size struct{ nodes, bytes int }

// growth adds up sizes, each node once however often it is referred to.
type growth struct{ done map[*yaml.Node]size }

const tooLarge = 1 << 40 // sums of it do not overflow: at most maxTokens of them are added

func (g growth) of(n *yaml.Node, depth int) size {
	if s, ok := g.done[n]; ok {
		return s
	}
	if depth > maxDepth {
		return size{tooLarge, tooLarge}
	}
	g.done[n] = size{tooLarge, tooLarge} // an alias to a node that it is part of
	s := size{1, len(n.Value) + 8}
	if n.Alias != nil {
		s = g.of(n.Alias, depth+1)
	}
	for _, c := range n.Content {
		cs := g.of(c, depth+1)
		s.nodes = min(s.nodes+cs.nodes, tooLarge)
		s.bytes = min(s.bytes+cs.bytes, tooLarge)
	}
	g.done[n] = s
	return s
}

// jsonDepth is how deep the arrays and objects of valid JSON are nested.
func jsonDepth(text []byte) int {
	deepest, depth, quoted := 0, 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{', c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}', c == ']':
			depth--
		}
	}
	return deepest
}

// plain makes one short line of an error's text.
func plain(s string) string {
	s = strings.Join(strings.Fields(strings.TrimPrefix(s, "yaml: ")), " ")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}
