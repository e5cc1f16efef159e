    begin
      select @expression@ into @variable@
      from (select @row@.*) as r
      @lateral@
      where true or exists (select from @table@);
    exception
      when data_exception or integrity_constraint_violation or syntax_error_or_access_rule_violation or plpgsql_error then
        @variable@ := null;
        @on_failure@
        fault := format('SQLSTATE %s in expression %s', sqlstate, '@column@');
    end;
