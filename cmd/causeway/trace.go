package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"causeway/control/api"
)

func traceCommand() *cobra.Command {
	var o captureOptions
	cmd := &cobra.Command{
		Use:   "trace [FILTER]",
		Short: "print the way of packets through the running daemon, with each decision",
		Long:  traceHelp,
		Args:  cobra.ArbitraryArgs, ValidArgsFunction: completeFilter,
	}
	o.flags(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "`FORMAT`: text, or json, an object a line")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains([]string{"text", "json"}, o.output) {
			return fmt.Errorf("output %q: text and json are possible", o.output)
		}
		if err := o.check(args); err != nil {
			return err
		}
		w, show := cmd.OutOrStdout(), traceText
		if o.output == "json" {
			enc := json.NewEncoder(w)
			enc.SetEscapeHTML(false)
			show = func(_ io.Writer, p *api.CapturedPacket) error { return enc.Encode(p) }
		}
		return o.capture(cmd.ErrOrStderr(), func(p *api.CapturedPacket) error { return show(w, p) }, func() error { return nil })
	}
	return cmd
}

// traceText prints a packet for people.
func traceText(w io.Writer, p *api.CapturedPacket) error {
	if _, err := fmt.Fprintf(w, "%d  %s  %s\n", p.Number, p.Time.Local().Format("15:04:05.000000"), p.Verdict); err != nil {
		return fmt.Errorf("the trace cannot be printed: %w", err)
	}
	for _, s := range p.Steps {
		fmt.Fprintf(w, "   %-10s  %s\n", s.Stage, s.Decision)
	}
	fmt.Fprintln(w)
	return nil
}
