#!/usr/bin/perl
# An MCP server on stdio with one tool, `say`, for test_packages.sh: a minimal Debian has Perl, and no JSON library for it.
use strict;
use warnings;

$| = 1;
while (my $line = <STDIN>) {
    my ($id) = $line =~ /"id"\s*:\s*("[^"]*"|\d+)/ or next;
    my ($method) = $line =~ /"method"\s*:\s*"([^"]*)"/ or next;
    my ($text) = $line =~ /"text"\s*:\s*"([^"\\]*)"/;
    my %results = (
        'initialize' => '{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"apart","version":"1"}}',
        'ping'       => '{}',
        'tools/list' => '{"tools":[{"name":"say","description":"Says it.","inputSchema":{"type":"object",'
            . '"properties":{"text":{"type":"string"}}}}]}',
        'tools/call' => '{"content":[{"type":"text","text":"' . ( $text // '' ) . '"}]}',
    );
    my $result = $results{$method};
    print defined $result
        ? qq({"jsonrpc":"2.0","id":$id,"result":$result}\n)
        : qq({"jsonrpc":"2.0","id":$id,"error":{"code":-32601,"message":"no such method"}}\n);
}
