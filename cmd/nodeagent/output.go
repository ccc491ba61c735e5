package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"nodeagent/internal/diag"
)

// format is the value of -o.
type format string

const (
	formatTable format = "table"
	formatWide  format = "wide"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
	formatName  format = "name"
)

// outputFlag adds -o with the formats that the verb has.
func outputFlag(cmd *cobra.Command, f *format, formats ...format) {
	*f = formats[0]
	words := make([]string, len(formats))
	for i, x := range formats {
		words[i] = string(x)
	}
	cmd.Flags().VarP(&formatValue{f, formats}, "output", "o", "format of the output: "+strings.Join(words, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

var listFormats = []format{formatTable, formatWide, formatJSON, formatYAML, formatName}

// formatValue is -o as pflag wants it.
type formatValue struct {
	to      *format
	formats []format
}

func (v *formatValue) String() string { return string(*v.to) }
func (v *formatValue) Type() string   { return "format" }

// Set implements pflag.Value.
func (v *formatValue) Set(s string) error {
	if !slices.Contains(v.formats, format(s)) {
		return fmt.Errorf("%q is not one of %v", s, v.formats)
	}
	*v.to = format(s)
	return nil
}

// show writes a document as JSON or YAML. JSON says the same as the document to
// the byte, and no character in it can act on a terminal.
func show(w io.Writer, f format, document any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(document); err != nil {
		return fmt.Errorf("encode the output: %w", err)
	}
	text := diag.EscapeJSON(b.Bytes())
	if f == formatYAML {
		y, err := yaml.JSONToYAML(b.Bytes())
		if err != nil {
			return fmt.Errorf("encode the output: %w", err)
		}
		return writeText(w, y)
	}
	_, err := w.Write(text)
	return err
}

// writeText writes text that may hold what pods wrote.
func writeText(w io.Writer, text []byte) error {
	out, flush := shield(w, false)
	if _, err := out.Write(text); err != nil {
		return err
	}
	return flush()
}

// names writes one name a line.
func names(w io.Writer, all []string) error {
	var b strings.Builder
	for _, n := range all {
		b.WriteString(diag.Escape(n) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// say tells the operator something, on stderr.
func say(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintln(cmd.ErrOrStderr(), "nodeagent:", diag.Escape(fmt.Sprintf(format, args...)))
}
