// Pktgen generates and receives packets for testing packet-forwarding software.
//
// Its rings are not Causeway's: the AF_XDP engines use github.com/asavie/xdp, so that a mistake in Causeway's own ring
// code cannot hide in the tool that tests it. That library has no memory barriers; the AF_XDP engines are for amd64.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Exit statuses.
const (
	exitFailed   = 1
	exitWrongUse = 2
)

// A usageError is a mistake of the command line.
type usageError struct{ msg string }

func (e usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit status.
func run(ctx context.Context, args []string, out, errs io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errs)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(errs, "pktgen: %v\n", err)
	var wrong usageError
	if errors.As(err, &wrong) || strings.HasPrefix(err.Error(), "unknown command") {
		fmt.Fprintf(errs, "`%s --help` shows how to use it.\n", cmd.CommandPath())
		return exitWrongUse
	}
	return exitFailed
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "pktgen",
		Short:         "generate and receive packets through AF_XDP and XDP",
		Long:          rootHelp,
		Example:       sendExamples + "\n\n" + sinkExamples,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("no command: give send or sink")
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err.Error()} })
	root.AddCommand(newSendCommand(), newSinkCommand())
	return root
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("argument %q is not understood: options begin with -- (or one - for a single letter)", args[0])
	}
	return nil
}

const rootHelp = `Pktgen sends generated packets (pktgen send) and counts received ones (pktgen sink).

Every generated packet carries a sequence number and the time it was sent, where there is room for them (18 bytes of
payload). A sink finds loss, duplicates, reordering and delay by them, also behind a device that encapsulates in GRE or
takes a GRE header off. Both commands end by themselves after 10 seconds unless told otherwise, and print the result
then or on Ctrl-C; --json makes it one JSON object on standard output.

Both need root (CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON).

Exit status: 0 good, 1 failed, 2 wrong use.`

const sendExamples = `  # 10 seconds of the smallest UDP packets, as fast as one core can, to whoever has 10.0.0.2
  pktgen send -i eth0 --dst 10.0.0.2

  # one million packets of 1000 flows at 100,000 packets/s, result as JSON
  pktgen send -i eth0 --dst 10.0.0.2 --flows 1000 --rate 100k --count 1M --duration 15s --json

  # the faster engine inside the kernel (a veth peer needs an XDP program, or: ethtool -K PEER gro on)
  pktgen send -i veth0 --engine live --dst 10.0.0.2 --dst-mac 02:00:00:00:00:01 --size imix

  # what a customer's router sends: UDP inside GRE with a key, for a device that decapsulates
  pktgen send -i eth0 --gre-src 198.51.100.2 --gre-dst 192.0.2.1 --gre-key 42 --src 203.0.113.7 --dst 10.9.9.9

  # TCP SYNs with MSS 1460, from 65536 addresses, one port each
  pktgen send -i eth0 --dst 10.0.0.2 --src 10.1.0.0 --tcp-syn --mss 1460 --flows 65536 --flow-ports 1`

const sinkExamples = `  # receive on every queue for at most a minute, until a million packets have come
  pktgen sink -i eth1 --duration 1m --expect 1M --json

  # only count, at the highest rate
  pktgen sink -i eth1 --engine xdp`
